package control

import (
	"context"
	"sync"

	"github.com/grafana/dskit/concurrency"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// verdicts remembers what is wrong with stored documents. A document was right when it was put, but a workspace's
// limits, the settings of the processes and their version change, and other tools write to the bucket.
type verdicts struct {
	mu    sync.Mutex // guards known
	known map[string]verdict
}

// verdict is what is wrong with one version of a document under one epoch of the limits; "": nothing.
type verdict struct {
	version docstore.Version
	epoch   uint64
	problem string
}

// maxVerdicts bounds what is remembered.
const maxVerdicts = 20_000

func (v *verdicts) get(key string, version docstore.Version, epoch uint64) (problem string, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	x, ok := v.known[key]
	return x.problem, ok && x.version == version && x.epoch == epoch
}

func (v *verdicts) put(key string, x verdict) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.known) >= maxVerdicts {
		clear(v.known)
	}
	v.known[key] = x
}

// problem says what is wrong with the stored document of k, whose version is given; "": nothing. It is the check of
// a call that puts, so that all replicas with the same limits say the same. data reads the document if it must be
// looked at. Errors: Unavailable.
func (c *Control) problem(ctx context.Context, workspace string, k kept, version docstore.Version, data func(context.Context) (docstore.Doc, error)) (string, error) {
	var epoch uint64
	if c.deps.Epoch != nil {
		epoch = c.deps.Epoch(tenant.ID(workspace))
	}
	if problem, ok := c.verdicts.get(k.key, version, epoch); ok {
		return problem, nil
	}
	d, err := data(ctx)
	if err != nil {
		return "", err
	}
	problem := ""
	if err := k.check(ctx, d.Data); err != nil {
		switch errs.KindOf(err) {
		case errs.Invalid, errs.Unprocessable, errs.Quota, errs.TooLarge:
			problem = err.Error()
		default:
			return "", err
		}
	}
	c.verdicts.put(k.key, verdict{d.Version, epoch, problem})
	return problem, nil
}

// stateOf is the state of a stored document in the words of the API.
func (n *note) stateOf(problem string) status {
	switch {
	case problem == "":
		return status{Code: active}
	case n.Replaced:
		return status{"UPDATE_FAILED", shortened(problem)}
	}
	return status{"CREATION_FAILED", shortened(problem)}
}

// maxReason bounds the text that says why something failed, in characters.
const maxReason = 256

func shortened(reason string) string {
	if r := []rune(reason); len(r) > maxReason {
		return string(r[:maxReason])
	}
	return reason
}

// judge fills in the states of rule files in a listing.
func (c *Control) judge(ctx context.Context, id string, found []namespaceSummary, of []namedRules) error {
	return concurrency.ForEachJob(ctx, len(found), readAhead, func(ctx context.Context, i int) error {
		k, err := c.namespace(id, found[i].Name)
		if err != nil { // a name that only another API takes
			k = c.namespaceAt(id, found[i].Name, of[i].Key)
		}
		problem, err := c.problem(ctx, id, k, of[i].Version, func(ctx context.Context) (docstore.Doc, error) {
			return c.texts.Get(ctx, k.key)
		})
		if errs.KindOf(err) == errs.NotFound {
			return nil // deleted since it was listed
		}
		found[i].Status = of[i].note.stateOf(problem)
		return err
	})
}
