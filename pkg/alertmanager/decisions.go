package alertmanager

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/alertmanager/alert"
	"github.com/prometheus/alertmanager/marker"
	"github.com/prometheus/alertmanager/matcher/compat"
	"github.com/prometheus/alertmanager/notify"
	"github.com/prometheus/alertmanager/pkg/labels"
	"github.com/prometheus/common/model"

	pb "github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

// decisionsPath is where a tenant reads what was decided about its alerts.
const decisionsPath = "/api/v1/decisions"

// The outcomes of a decision.
const (
	outcomeSent      = "sent"
	outcomeHeld      = "held back"
	outcomeUnchanged = "nothing new"
	outcomeFailed    = "failed"
)

const (
	// decisionsKept is how many decisions are kept of one alert.
	decisionsKept = 16
	// decisionText bounds the reason of one.
	decisionText = 300
)

// Decision is why a receiver was or was not notified of an alert. Repetitions are counted.
type Decision struct {
	Replica  string    `json:"replica"`
	Receiver string    `json:"receiver"`
	Outcome  string    `json:"outcome"`
	Reason   string    `json:"reason"`
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
	Count    int       `json:"count"`
}

// Decided is an alert with the decisions about it, oldest first.
type Decided struct {
	Fingerprint string         `json:"fingerprint"`
	Labels      model.LabelSet `json:"labels"`
	Decisions   []Decision     `json:"decisions"`
}

// decisions remembers the last ones about each alert, for as long as the alert is kept.
type decisions struct {
	replica string

	mu sync.Mutex // guards by
	by map[model.Fingerprint][]Decision
}

// note remembers a decision about alerts that are still kept.
func (d *decisions) note(receiver, outcome, reason string, alerts ...*alert.Alert) {
	if len(reason) > decisionText {
		reason = strings.ToValidUTF8(reason[:decisionText], "") + "..."
	}
	now := time.Now().UTC()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range alerts {
		fp := a.Fingerprint()
		list := d.by[fp]
		if list == nil && a.Resolved() {
			continue // it may be forgotten already, and nobody would forget it again
		}
		if i := slices.IndexFunc(list, func(x Decision) bool { return x.Receiver == receiver && x.Outcome == outcome && x.Reason == reason }); i >= 0 && outcome != outcomeSent {
			list[i].Last, list[i].Count = now, list[i].Count+1
			continue
		}
		if len(list) == decisionsKept {
			list = slices.Delete(list, 0, 1)
		}
		d.by[fp] = append(list, Decision{Replica: d.replica, Receiver: receiver, Outcome: outcome, Reason: reason, First: now, Last: now, Count: 1})
	}
}

// forget drops what was decided about an alert.
func (d *decisions) forget(fp model.Fingerprint) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.by, fp)
}

// about returns the decisions about an alert.
func (d *decisions) about(fp model.Fingerprint) []Decision {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.by[fp])
}

// noted is a stage whose refusals are remembered.
type noted struct {
	stage notify.Stage
	log   *decisions
	why   func(context.Context, *alert.Alert) string
}

// Exec implements notify.Stage.
func (n noted) Exec(ctx context.Context, l *slog.Logger, alerts ...*alert.Alert) (context.Context, []*alert.Alert, error) {
	receiver, _ := notify.ReceiverName(ctx)
	after, passed, err := n.stage.Exec(ctx, l, alerts...)
	if err != nil {
		n.log.note(receiver, outcomeFailed, err.Error(), alerts...)
		return after, passed, err
	}
	if len(passed) == len(alerts) {
		return after, passed, nil
	}
	for _, a := range alerts {
		if !slices.Contains(passed, a) {
			n.log.note(receiver, outcomeHeld, n.why(ctx, a), a)
		}
	}
	return after, passed, nil
}

func bySilence(ctx context.Context, a *alert.Alert) string {
	if m, ok := marker.FromContext(ctx); ok {
		return "silenced by " + strings.Join(m.Status(a.Fingerprint()).SilencedBy, ", ")
	}
	return "silenced"
}

func byInhibition(ctx context.Context, a *alert.Alert) string {
	if m, ok := marker.FromContext(ctx); ok {
		return "inhibited by the alert " + strings.Join(m.Status(a.Fingerprint()).InhibitedBy, ", ")
	}
	return "inhibited"
}

func outsideTimes(ctx context.Context, _ *alert.Alert) string {
	names, _ := notify.ActiveTimeIntervalNames(ctx)
	return "outside of the times " + strings.Join(names, ", ")
}

func insideTimes(ctx context.Context, _ *alert.Alert) string {
	names, _ := notify.MuteTimeIntervalNames(ctx)
	return "within the times " + strings.Join(names, ", ")
}

// decided answers what was decided here about alerts that match the filters of a request.
func (in *instance) decided(query []string) (*pb.Response, error) {
	var filters []*labels.Matcher
	for _, text := range query {
		m, err := compat.Matcher(text, "decisions")
		if err != nil {
			return &pb.Response{Status: http.StatusBadRequest, Body: fmt.Appendf(nil, "%q", err.Error()), Headers: asJSON()}, nil
		}
		filters = append(filters, m)
	}
	out := []Decided{}
	it := in.alerts.GetPending()
	defer it.Close()
	for a := range it.Next() {
		if slices.ContainsFunc(filters, func(m *labels.Matcher) bool { return !m.Matches(string(a.Data.Labels[model.LabelName(m.Name)])) }) {
			continue
		}
		fp := a.Data.Fingerprint()
		out = append(out, Decided{Fingerprint: fp.String(), Labels: a.Data.Labels, Decisions: in.decisions.about(fp)})
	}
	return answer(out)
}

// mergeDecisions is what all replicas decided, in the order of time.
func mergeDecisions(in []*pb.Response) (*pb.Response, error) {
	byAlert := map[string]*Decided{}
	for _, r := range in {
		var list []Decided
		if err := json.Unmarshal(r.GetBody(), &list); err != nil {
			return nil, errors.Join(errors.New("answer of a replica"), err)
		}
		for _, d := range list {
			if old := byAlert[d.Fingerprint]; old != nil {
				old.Decisions = append(old.Decisions, d.Decisions...)
			} else {
				byAlert[d.Fingerprint] = &d
			}
		}
	}
	out := []Decided{}
	for _, d := range byAlert {
		slices.SortStableFunc(d.Decisions, func(a, b Decision) int { return a.Last.Compare(b.Last) })
		if d.Decisions == nil {
			d.Decisions = []Decision{}
		}
		out = append(out, *d)
	}
	slices.SortFunc(out, func(a, b Decided) int { return cmp.Compare(a.Fingerprint, b.Fingerprint) })
	return answer(out)
}
