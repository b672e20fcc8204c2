// Package activity owns the record of what a process is doing right now, and for whom: a small file
// that names the requests under way, which the next start reads after a kill, and the profile labels
// that tell tenants apart.
package activity

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/grafana/dskit/user"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/amphora-metrics/amphora/pkg/config"
)

const (
	// mostEntries bounds the file to 16 MiB.
	mostEntries = 16 << 10
	// tenantLabel is the label of profiles.
	tenantLabel = "tenant"
	// mostLabels bounds the labels that are kept to be used again.
	mostLabels = 20_000
)

// Config is the settings of the file.
type Config struct {
	Path    string
	Entries int
	Labels  bool
}

// Declare implements config.Declarer; app mounts it as activity_tracker.
func (c *Config) Declare(s *config.Set) {
	s.String(&c.Path, "filepath", "./data/activity", "File that lists the queries and other heavy requests under way. What a killed process left in it is logged at the next start. Empty: none.").Expert()
	s.Int(&c.Entries, "max_entries", 1024, "Most requests in the file, 1 KiB each. Requests beyond that are served but not listed.").Expert()
	s.Bool(&c.Labels, "profile_tenants", true, "Whether Go profiles of queries and pushes carry the label tenant.").Expert()
}

// Validate implements config.Validator.
func (c *Config) Validate() error {
	if c.Entries < 1 || c.Entries > mostEntries {
		return config.Wrong("max_entries", "is %d, it must be between 1 and %d", c.Entries, mostEntries)
	}
	return nil
}

// Deps is what a Tracker needs beside its settings.
type Deps struct {
	Log    *slog.Logger
	Reg    prometheus.Registerer
	Target string           // what the process is, for whoever reads the file
	Now    func() time.Time // nil: time.Now
}

// Tracker knows what is under way. A nil Tracker is told in vain.
type Tracker struct {
	log     *slog.Logger
	now     func() time.Time
	metrics *metrics
	labels  *labels // nil: profiles have none

	mu     sync.Mutex // guards what follows
	file   *os.File   // nil: there is none, or it broke
	free   []int      // slots
	broken bool       // the file was given up, which was said
}

// Open logs what was under way when a process that had the file before was killed, and begins anew. The
// file is an aid: without it the process works, and says so.
func Open(cfg Config, deps Deps) *Tracker {
	t := &Tracker{log: deps.Log, now: deps.Now, metrics: newMetrics(deps.Reg)}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	if t.now == nil {
		t.now = time.Now
	}
	if cfg.Labels {
		t.labels = &labels{m: map[string]context.Context{}}
	}
	if cfg.Path == "" {
		return t
	}
	f, left, err := take(cfg.Path, cfg.Entries, deps.Target)
	for _, e := range left {
		t.log.Warn("request was under way when a process ended without stopping", "of", e.of, "since", e.since.UTC().Format(time.RFC3339Nano), "request", e.text)
	}
	t.metrics.left.Set(float64(len(left)))
	if err != nil {
		t.metrics.failed.WithLabelValues("open").Inc()
		t.log.Warn("no file names the requests under way, so a kill leaves none; see activity_tracker.filepath", "file", cfg.Path, "err", err)
		return t
	}
	t.file = f
	for i := range cfg.Entries {
		t.free = append(t.free, cfg.Entries-1-i)
	}
	t.metrics.free.Set(float64(cfg.Entries))
	return t
}

// Close lets go of the file, which then tells of nothing.
func (t *Tracker) Close() error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.file
	t.file, t.free = nil, nil
	if f == nil {
		return nil
	}
	// What is still under way is cut on purpose.
	return errors.Join(f.Truncate(0), f.Close())
}

type underWayKey struct{}

// underWay is one entry of the file.
type underWay struct {
	t     *Tracker
	slot  int
	since time.Time

	mu    sync.Mutex // guards what follows
	text  string
	ended bool
}

// Begin says what is being done for the tenants of ctx, in the file and in profiles, until end is
// called by the same goroutine. more, which may be nil, is what else is known and must hold nothing secret.
// Who has the returned context can Note what is learnt later.
func (t *Tracker) Begin(ctx context.Context, what string, more func() string) (_ context.Context, end func()) {
	if t == nil {
		return ctx, func() {}
	}
	outer := ctx
	org, _ := user.ExtractOrgID(ctx)
	labelled := t.labels != nil && org != ""
	if labelled {
		ctx = pprof.WithLabels(ctx, pprof.Labels(tenantLabel, org))
		pprof.SetGoroutineLabels(ctx)
	}
	u := t.enter(ctx, what, org, more)
	if u != nil {
		ctx = context.WithValue(ctx, underWayKey{}, u)
	}
	return ctx, func() {
		if u != nil {
			u.leave()
		}
		if labelled {
			pprof.SetGoroutineLabels(outer)
		}
	}
}

// Note adds to what is said of the request of ctx: what it asks for, once that is known. It must hold
// nothing secret.
func Note(ctx context.Context, text string) {
	u, _ := ctx.Value(underWayKey{}).(*underWay)
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended || len(u.text) >= textBytes {
		return
	}
	u.add(text)
	u.t.write(u)
}

// add appends as much of text as the file can have.
func (u *underWay) add(text string) {
	if len(text) > textBytes {
		text = text[:textBytes]
	}
	if text != "" {
		u.text += " " + text
	}
}

// Asked is what is said of the parameters of a request of the read API. Others may be credentials.
func Asked(form url.Values) string {
	var b strings.Builder
	for _, name := range [...]string{"start", "end", "time", "step", "limit", "query", "match[]", "selector"} {
		for _, v := range form[name] {
			if b.Len() > textBytes {
				return b.String()
			}
			if b.Len() > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(name + "=" + v)
		}
	}
	return b.String()
}

// Noted says whether Note would be heard, for those to whom the text costs something.
func Noted(ctx context.Context) bool { return ctx.Value(underWayKey{}) != nil }

// enter gives a request a slot, and returns nil if there is none.
func (t *Tracker) enter(ctx context.Context, what, org string, more func() string) *underWay {
	slot, ok := t.slot()
	if !ok {
		return nil
	}
	u := &underWay{t: t, slot: slot, since: t.now(), text: what}
	if org != "" {
		u.text += " tenant=" + org
	}
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		u.text += " trace=" + span.TraceID().String()
	}
	if more != nil {
		u.add(more())
	}
	t.write(u)
	return u
}

func (t *Tracker) slot() (int, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file == nil {
		return 0, false
	}
	n := len(t.free)
	if n == 0 {
		t.metrics.failed.WithLabelValues("full").Inc()
		return 0, false
	}
	slot := t.free[n-1]
	t.free = t.free[:n-1]
	t.metrics.free.Set(float64(n - 1))
	return slot, true
}

// leave frees the slot of u.
func (u *underWay) leave() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ended = true
	t := u.t
	t.put(u.slot, []byte{0, 0})
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file != nil {
		t.free = append(t.free, u.slot)
		t.metrics.free.Set(float64(len(t.free)))
	}
}

// write brings u into the file.
func (t *Tracker) write(u *underWay) {
	var b [entryBytes]byte
	t.put(u.slot, appendEntry(b[:0], u.since, u.text))
}

// put writes the beginning of a slot. A file that cannot be written to is given up: an entry that stays
// in it would tell of a request that ended long ago.
func (t *Tracker) put(slot int, b []byte) {
	t.mu.Lock()
	f := t.file
	t.mu.Unlock()
	if f == nil {
		return
	}
	_, err := f.WriteAt(b, offset(slot))
	if err == nil || errors.Is(err, os.ErrClosed) {
		return
	}
	t.metrics.failed.WithLabelValues("write").Inc()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken {
		return
	}
	t.broken, t.file, t.free = true, nil, nil
	t.metrics.free.Set(0)
	_ = f.Truncate(0) // nothing is better than something wrong
	t.log.Warn("the file that names the requests under way cannot be written, none is named until the process starts again", "file", f.Name(), "err", err)
}

// Label says in profiles that this goroutine works for tenants until end is called, which then works
// for nobody. It costs no memory for tenants that were seen before.
func (t *Tracker) Label(tenants string) (end func()) {
	if t == nil || t.labels == nil || tenants == "" {
		return func() {}
	}
	pprof.SetGoroutineLabels(t.labels.of(tenants))
	return unlabel
}

func unlabel() { pprof.SetGoroutineLabels(context.Background()) }

// labels are those of tenants seen before.
type labels struct {
	mu sync.RWMutex // guards m
	m  map[string]context.Context
}

func (l *labels) of(tenants string) context.Context {
	l.mu.RLock()
	ctx := l.m[tenants]
	l.mu.RUnlock()
	if ctx != nil {
		return ctx
	}
	own := strings.Clone(tenants)
	ctx = pprof.WithLabels(context.Background(), pprof.Labels(tenantLabel, own))
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.m) >= mostLabels {
		clear(l.m)
	}
	l.m[own] = ctx
	return ctx
}

// byAge puts the oldest first.
func byAge(left []leftover) {
	slices.SortStableFunc(left, func(a, b leftover) int { return cmp.Or(a.since.Compare(b.since), strings.Compare(a.text, b.text)) })
}
