// Package rules owns the HTTP API of rules: the YAML API by which tenants change them, the JSON API
// of Prometheus that reports their state, and the operators' pages.
package rules

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/rulerpb"
)

// Store changes the rules of tenants. Errors have kinds: Invalid says what is wrong with the rules,
// with lines where they are known, and then nothing has changed.
type Store interface {
	// Rules returns YAML: a map from namespaces to groups, of one namespace if it is named, or one group.
	Rules(ctx context.Context, id tenant.ID, namespace, group string) ([]byte, error)
	SetGroup(ctx context.Context, id tenant.ID, namespace string, data []byte) error
	DeleteGroup(ctx context.Context, id tenant.ID, namespace, group string) error
	DeleteNamespace(ctx context.Context, id tenant.ID, namespace string) error
	DeleteAll(ctx context.Context, id tenant.ID) error
}

// Namespaces changes whole namespaces.
type Namespaces interface {
	// Replace makes data, a rule file, all of a namespace. Unless expect is empty the version of the
	// namespace must be that; * is any. A trial changes nothing. It returns the version that is in
	// force. Errors: Conflict for another version.
	Replace(ctx context.Context, id tenant.ID, namespace string, data []byte, expect string, trial bool) (Changes, string, error)
	// ReplaceAll makes with.Data, a map from namespaces to groups, all rules of the tenant. allow says why a
	// namespace may not be changed. Errors: Conflict for another version.
	ReplaceAll(ctx context.Context, id tenant.ID, with All, allow func(namespace string) error) (Changes, string, error)
	// Version names the state of a namespace, or of all if none is named; it is empty if there is none.
	Version(ctx context.Context, id tenant.ID, namespace string) (string, error)
	// Protected says that a namespace may be changed only by who says that he means it.
	Protected(id tenant.ID, namespace string) bool
	// Tenants lists who has rules.
	Tenants(ctx context.Context) ([]tenant.ID, error)
}

// All is what takes the place of all rules of a tenant: unless Expect is empty their version must be that.
// A trial changes nothing.
type All struct {
	Data   []byte
	Expect string
	Trial  bool
}

// Changes are the names of groups by what a replacement does to them.
type Changes struct {
	Added     []string `json:"added"`
	Changed   []string `json:"changed"`
	Removed   []string `json:"removed"`
	Unchanged []string `json:"unchanged"`
}

// Evaluator knows what became of rules.
type Evaluator interface {
	// List returns the groups of a tenant that req selects, sorted by namespace and name.
	List(ctx context.Context, id tenant.ID, req *rulerpb.GroupsRequest) ([]*rulerpb.Group, error)
	// Evaluated says which kinds of rules of a tenant are evaluated.
	Evaluated(id tenant.ID) (recording, alerting bool)
}

// Backends is what the API works with.
type Backends struct {
	// Editable says that there is an API by which tenants change their rules.
	Editable   bool
	Store      Store
	Namespaces Namespaces
	Evaluator  Evaluator
	// Preview evaluates a rule file over the past and stores nothing; the answer is sent as JSON.
	Preview func(ctx context.Context, id tenant.ID, data []byte, start, end time.Time) (any, error)
	// Test runs a file of unit tests; the answer is sent as JSON.
	Test func(ctx context.Context, id tenant.ID, data []byte) (any, error)
}

const (
	// maxBodyBytes bounds a group, and a namespace.
	maxBodyBytes = 1 << 20
	// maxAllBytes bounds all rules of a tenant.
	maxAllBytes = 16 << 20
)

// API serves rules. Handlers return an error instead of rendering it; it has a kind.
type API struct{ b Backends }

// New returns the API over b.
func New(b Backends) *API { return &API{b} }

// Get answers with rules as YAML.
func (a *API) Get(w http.ResponseWriter, r *http.Request, id tenant.ID) error {
	namespace, group := r.PathValue("namespace"), r.PathValue("group")
	out, err := a.b.Store.Rules(r.Context(), id, namespace, group)
	if err != nil {
		return err
	}
	if group == "" {
		version, err := a.b.Namespaces.Version(r.Context(), id, namespace)
		if err != nil {
			return err
		}
		if version != "" {
			w.Header().Set("ETag", strconv.Quote(version))
		}
	}
	w.Header().Set("Content-Type", "application/yaml")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(out) // the client is gone if this fails
	return nil
}

// Config answers every method of the API by which rules are changed.
func (a *API) Config(w http.ResponseWriter, r *http.Request) error {
	id, err := tenant.FromContext(r.Context())
	if err != nil {
		return err
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return a.Get(w, r, id)
	}
	namespace, group := r.PathValue("namespace"), r.PathValue("group")
	if err := a.allowed(r, id, namespace); err != nil {
		return err
	}
	switch {
	case r.Method == http.MethodPut:
		return a.replace(w, r, id, namespace)
	case r.Method == http.MethodPost:
		data, err := body(w, r, maxBodyBytes)
		if err != nil {
			return err
		}
		err = a.b.Store.SetGroup(r.Context(), id, namespace, data)
		if err != nil {
			return err
		}
	case group != "":
		err = a.b.Store.DeleteGroup(r.Context(), id, namespace, group)
	default:
		err = a.b.Store.DeleteNamespace(r.Context(), id, namespace)
	}
	if err != nil {
		return err
	}
	return accepted(w, nil)
}

// allowed refuses to change a protected namespace, unless the caller says that he means it.
func (a *API) allowed(r *http.Request, id tenant.ID, namespace string) error {
	if a.b.Namespaces.Protected(id, namespace) && !overrides(r, namespace) {
		return errs.New(errs.Denied, "namespace is protected, no modification allowed")
	}
	return nil
}

// overrides says that the caller means it.
func overrides(r *http.Request, namespace string) bool {
	for _, header := range []string{"X-Amphora-Ruler-Override-Namespace-Protection", "X-Mimir-Ruler-Override-Namespace-Protection"} {
		for _, list := range r.Header.Values(header) {
			for name := range strings.SplitSeq(list, ",") {
				if strings.TrimSpace(name) == namespace {
					return true
				}
			}
		}
	}
	return false
}

func body(w http.ResponseWriter, r *http.Request, most int64) ([]byte, error) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, errs.New(errs.BodyTooLarge, "the rules are larger than the %d bytes that are allowed", most)
	}
	if err != nil {
		return nil, errs.New(errs.Invalid, "read the rules: %w", err)
	}
	return data, nil
}

// answer is the frame of Prometheus's API.
type answer struct {
	Status    string   `json:"status"`
	Data      any      `json:"data"`
	ErrorType string   `json:"errorType"`
	Error     string   `json:"error"`
	Warnings  []string `json:"warnings,omitempty"`
}

// accepted answers that a change is made, and is in force everywhere soon.
func accepted(w http.ResponseWriter, data any) error {
	return send(w, http.StatusAccepted, answer{Status: "success", Data: data})
}

func send(w http.ResponseWriter, status int, v any) error {
	out, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(out) // the client is gone if this fails
	return nil
}

// replace makes the body all of a namespace, or of all if none is named. If-Match names the version that is replaced, and
// dry_run=true changes nothing.
func (a *API) replace(w http.ResponseWriter, r *http.Request, id tenant.ID, namespace string) error {
	most := int64(maxBodyBytes)
	if namespace == "" {
		most = maxAllBytes
	}
	data, err := body(w, r, most)
	if err != nil {
		return err
	}
	trial := false
	if text := r.URL.Query().Get("dry_run"); text != "" {
		if trial, err = strconv.ParseBool(text); err != nil {
			return errs.New(errs.Invalid, "dry_run: %q is neither true nor false", text)
		}
	}
	expect := r.Header.Get("If-Match")
	if bare, err := strconv.Unquote(expect); err == nil {
		expect = bare
	}
	var changes Changes
	var version string
	if namespace == "" {
		changes, version, err = a.b.Namespaces.ReplaceAll(r.Context(), id, All{data, expect, trial}, func(namespace string) error { return a.allowed(r, id, namespace) })
	} else {
		changes, version, err = a.b.Namespaces.Replace(r.Context(), id, namespace, data, expect, trial)
	}
	if err != nil {
		return err
	}
	if version != "" {
		w.Header().Set("ETag", strconv.Quote(version))
	}
	if trial {
		return send(w, http.StatusOK, answer{Status: "success", Data: changes})
	}
	return accepted(w, changes)
}

// DeleteTenant deletes all rules of the calling tenant.
func (a *API) DeleteTenant(w http.ResponseWriter, r *http.Request) error {
	id, err := tenant.FromContext(r.Context())
	if err != nil {
		return err
	}
	if err := a.b.Store.DeleteAll(r.Context(), id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}
