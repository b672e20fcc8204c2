package otlp

import (
	"math"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
)

// The attributes that name who sends.
const (
	serviceName      = "service.name"
	serviceNamespace = "service.namespace"
	serviceInstance  = "service.instance.id"
)

// resource is who sends the metrics being read.
type resource struct {
	raw              []byte  // the message
	attrs            []label // as sent: key and value
	job, instance    string
	bad              error  // why nothing of it can be stored
	earliest, latest uint64 // of its points, nanoseconds; latest 0: none
}

// request reads an ExportMetricsServiceRequest.
func (t *Translator) request(b []byte) error {
	var f field
	for len(b) > 0 {
		var ok bool
		if b, ok = f.next(b); !ok {
			return malformed("field")
		}
		if f.number != 1 {
			continue
		}
		if f.wire != wireBytes {
			return malformed("resource metrics")
		}
		if err := t.resourceMetrics(f.data); err != nil {
			return err
		}
	}
	t.writeTargets()
	return nil
}

// resourceMetrics reads a ResourceMetrics: first the resource, then what was measured there.
func (t *Translator) resourceMetrics(b []byte) error {
	t.resource = resource{attrs: t.resource.attrs[:0], earliest: math.MaxUint64}
	var f field
	for rest := b; len(rest) > 0; {
		var ok bool
		if rest, ok = f.next(rest); !ok {
			return malformed("field of resource metrics")
		}
		if f.is(1, wireBytes) {
			if t.resource.raw == nil {
				t.resource.raw = f.data
			} else {
				t.resource.raw = slices.Concat(t.resource.raw, f.data) // two messages are one
			}
			if err := t.readResource(f.data); err != nil {
				return err
			}
		}
	}
	t.identify()
	for rest := b; len(rest) > 0; {
		rest, _ = f.next(rest)
		if f.is(2, wireBytes) {
			if err := t.scopeMetrics(f.data); err != nil {
				return err
			}
		}
	}
	t.endResource()
	if !t.set.Handed {
		t.describeTarget()
	}
	return t.enc.Err()
}

// readResource reads a Resource.
func (t *Translator) readResource(b []byte) error {
	var f field
	for len(b) > 0 {
		var ok bool
		if b, ok = f.next(b); !ok {
			return malformed("resource")
		}
		if !f.is(1, wireBytes) {
			continue
		}
		key, value, err := t.keyValue(f.data)
		if err != nil {
			return err
		}
		if len(t.resource.attrs) == maxAttributes {
			return malformed("resource with too many attributes")
		}
		t.resource.attrs = append(t.resource.attrs, label{key: key, value: value})
	}
	return nil
}

// get returns the first value of key.
func (r *resource) get(key string) (string, bool) {
	for i := range r.attrs {
		if r.attrs[i].key == key {
			return r.attrs[i].value, true
		}
	}
	return "", false
}

// identify finds what the labels job and instance are.
func (t *Translator) identify() {
	r := &t.resource
	if name, ok := r.get(serviceName); ok {
		r.job = name
		if space, ok := r.get(serviceNamespace); ok {
			r.job = t.enc.Join(space, "/", name)
		}
	}
	r.instance, _ = r.get(serviceInstance)
}

// scopeMetrics reads a ScopeMetrics: first the scope, then its metrics.
func (t *Translator) scopeMetrics(b []byte) error {
	var f field
	var scope []byte
	schema := ""
	for rest := b; len(rest) > 0; {
		var ok bool
		if rest, ok = f.next(rest); !ok {
			return malformed("field of scope metrics")
		}
		switch {
		case f.is(1, wireBytes):
			scope = f.data
		case f.is(3, wireBytes):
			schema = view(f.data)
		}
	}
	if err := t.setConstants(scope, schema); err != nil {
		return err
	}
	for rest := b; len(rest) > 0; {
		rest, _ = f.next(rest)
		if f.is(2, wireBytes) {
			if err := t.metric(f.data); err != nil {
				return err
			}
		}
	}
	t.endScope(scope, schema)
	return nil
}

// setConstants makes the labels that all series of a scope have. A name that cannot be a label
// refuses all that follows of the resource. Errors: Invalid (malformed).
func (t *Translator) setConstants(scope []byte, schema string) error {
	r := &t.resource
	t.constants, r.bad = t.constants[:0], nil
	t.constant(nameLabel, "", true)
	for _, key := range t.set.Promote {
		if value, ok := r.get(key); ok && value != "" {
			n := t.labelNameOf(key)
			if n.bad {
				r.bad = badName(key)
				return nil
			}
			t.constant(n.name, value, false)
		}
	}
	if r.job != "" {
		t.constant(model.JobLabel, r.job, true)
	}
	if r.instance != "" {
		t.constant(model.InstanceLabel, r.instance, true)
	}
	if t.set.Scope {
		if err := t.scopeConstants(scope, schema); err != nil {
			return err
		}
	}
	slices.SortFunc(t.constants, func(a, b label) int { return strings.Compare(a.name, b.name) })
	return nil
}

// constant sets one label that all series of a scope have.
func (t *Translator) constant(name, value string, override bool) {
	c := label{name: name, value: value, nameRef: t.enc.Symbol(name), valueRef: t.enc.Symbol(value), override: override}
	i := slices.IndexFunc(t.constants, func(c label) bool { return c.name == name })
	switch {
	case i < 0:
		t.constants = append(t.constants, c)
	case name != nameLabel:
		t.constants[i] = c
	}
}

// scopeConstants adds what an InstrumentationScope says.
func (t *Translator) scopeConstants(scope []byte, schema string) error {
	name, version := "", ""
	var attrs [][]byte
	var f field
	for len(scope) > 0 {
		var ok bool
		if scope, ok = f.next(scope); !ok {
			return malformed("scope")
		}
		switch {
		case f.is(1, wireBytes):
			name = view(f.data)
		case f.is(2, wireBytes):
			version = view(f.data)
		case f.is(3, wireBytes):
			attrs = append(attrs, f.data)
		}
	}
	if name == "" {
		return nil
	}
	for _, a := range attrs[:min(len(attrs), maxAttributes)] {
		key, value, err := t.keyValue(a)
		if err != nil {
			return err
		}
		n := t.labelNameOf(t.enc.Join("otel_scope_", key))
		if n.bad {
			t.resource.bad = badName(key)
			return nil
		}
		t.constant(n.name, value, true)
	}
	t.constant("otel_scope_name", name, true)
	t.constant("otel_scope_version", version, true)
	t.constant("otel_scope_schema_url", schema, true)
	return nil
}

// saw notes the time of a point, if that can be one.
func (r *resource) saw(ns uint64) {
	if ns > 0 && ns <= math.MaxInt64 {
		r.earliest, r.latest = min(r.earliest, ns), max(r.latest, ns)
	}
}
