package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// The states of what is stored. What calls describe has more; see docs of the API.
const (
	active   = "ACTIVE"
	deleting = "DELETING"
	deleted  = "DELETED"
	purged   = "PURGED"
)

// account lists the workspaces and scrapers of an account, so that their number is checked and a client token is
// kept in the same swap.
type account struct {
	Workspaces []entry `json:"workspaces"`
	Scrapers   []entry `json:"scrapers,omitempty"`
	Tokens     tokens  `json:"tokens,omitempty"`
}

// workspace is all that is known of a workspace except its rules and its definition.
type workspace struct {
	ID       string            `json:"id"`
	Account  string            `json:"account"`
	Alias    string            `json:"alias,omitempty"`
	Tags     map[string]string `json:"tags,omitempty"`
	Key      string            `json:"kms_key_arn,omitempty"`
	State    string            `json:"state"`
	Created  time.Time         `json:"created"`
	Deleted  time.Time         `json:"deleted,omitzero"`
	Logging  *logging          `json:"logging,omitempty"`
	Queries  *queryLogging     `json:"query_logging,omitempty"`
	Settings *settings         `json:"configuration,omitempty"`
	Policy   *policy           `json:"policy,omitempty"`
	Tokens   tokens            `json:"tokens,omitempty"`
}

// note is what Amazon's API knows of a rule file or definition beside its text.
type note struct {
	Created  time.Time         `json:"created"`
	Replaced bool              `json:"replaced,omitempty"` // the text is not the one it was made with
	Tags     map[string]string `json:"tags,omitempty"`
}

// tokens are the client tokens of changes, kept for as long as a client may repeat a call.
type tokens map[string]token

type token struct {
	Operation string          `json:"operation"`
	Hash      string          `json:"hash"` // of the parameters
	Answer    json.RawMessage `json:"answer,omitempty"`
	At        time.Time       `json:"at"`
}

const (
	tokenAge  = 24 * time.Hour
	maxTokens = 500
)

// find returns the answer of a call that was made before with the same token. Errors: Conflict if the
// call was another one.
func (t tokens) find(key, operation, hash string) (json.RawMessage, bool, error) {
	old, ok := t[operation+" "+key]
	if key == "" || !ok {
		return nil, false, nil
	}
	if old.Hash != hash {
		return nil, false, errs.New(errs.Conflict, "the client token was used before, with other parameters")
	}
	return old.Answer, true, nil
}

// keep remembers the answer of a call, and forgets those of long ago.
func (t *tokens) keep(key string, x token) {
	if key == "" {
		return
	}
	if *t == nil {
		*t = tokens{}
	}
	maps.DeleteFunc(*t, func(_ string, old token) bool { return x.At.Sub(old.At) > tokenAge })
	for len(*t) >= maxTokens {
		oldest := slices.MinFunc(slices.Collect(maps.Keys(*t)), func(x, y string) int { return (*t)[x].At.Compare((*t)[y].At) })
		delete(*t, oldest)
	}
	(*t)[x.Operation+" "+key] = x
}

// hashOf tells calls apart whose parameters differ.
func hashOf(parameters ...any) string {
	data, err := json.Marshal(parameters)
	if err != nil {
		panic("BUG: parameters cannot be encoded: " + err.Error())
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}

func encode(v any) ([]byte, error) { return json.MarshalIndent(v, "", " ") }

// read decodes the document key into v and returns its version; "" if there is none, and v stays.
func (c *Control) read(ctx context.Context, key string, v any) (docstore.Version, error) {
	return read(ctx, c.deps.Documents, key, v)
}

func read(ctx context.Context, documents *docstore.Store, key string, v any) (docstore.Version, error) {
	d, err := documents.Get(ctx, key)
	if errs.KindOf(err) == errs.NotFound {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if err := json.Unmarshal(d.Data, v); err != nil {
		return "", errs.New(errs.Internal, "document %s cannot be read: %w", key, err)
	}
	return d.Version, nil
}

// update lets change work on the document key, which is new if exists is false, until no other
// process was faster. If change says that there is nothing to write, nothing is written.
func update[T any](ctx context.Context, c *Control, key string, change func(v *T, exists bool) (write bool, err error)) (*T, error) {
	var last *T
	_, err := c.deps.Documents.Update(ctx, key, func(old docstore.Doc) ([]byte, error) {
		v := new(T)
		if old.Version != "" {
			if err := json.Unmarshal(old.Data, v); err != nil {
				return nil, errs.New(errs.Internal, "document %s cannot be read: %w", key, err)
			}
		}
		last = v
		write, err := change(v, old.Version != "")
		if err != nil || !write {
			return nil, err
		}
		return encode(v)
	})
	return last, err
}
