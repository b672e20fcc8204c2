package docstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/seeds"
)

// turns is a bucket in memory whose calls wait until they are let go on, one at a time, and lose their
// answers or are not made when the schedule says so.
type turns struct {
	rnd *rand.Rand

	mu      sync.Mutex // guards waiting; those who waited to try again come at the same time
	waiting [callers]chan struct{}

	// Of the one call that goes on.
	data    string
	version int // of data; 0: there is none
	made    int // versions
}

// callers is how many clients there are.
const callers = 3

var errBroken = errors.New("the connection broke")

// caller is who makes a call.
type caller struct {
	who    int
	broken int // tries that got no answer
}

type callerKey struct{}

func of(ctx context.Context) *caller { return ctx.Value(callerKey{}).(*caller) }

func (b *turns) step(ctx context.Context) bool {
	wait := make(chan struct{})
	b.mu.Lock()
	b.waiting[of(ctx).who] = wait
	b.mu.Unlock()
	<-wait
	return b.rnd.IntN(8) > 0
}

func (b *turns) current() string {
	if b.version == 0 {
		return ""
	}
	return fmt.Sprint("v", b.version)
}

// letGo lets one of the calls that wait go on, and says whether there was one.
func (b *turns) letGo() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	var who []int
	for i, wait := range b.waiting {
		if wait != nil {
			who = append(who, i)
		}
	}
	if len(who) == 0 {
		return false
	}
	i := who[b.rnd.IntN(len(who))]
	close(b.waiting[i])
	b.waiting[i] = nil
	return true
}

// answered says whether the answer of a call that was made arrives.
func (b *turns) answered(ctx context.Context) error {
	if !b.step(ctx) {
		return errBroken
	}
	return nil
}

func (b *turns) Read(ctx context.Context, name string) (bucket.Object, error) {
	if !b.step(ctx) {
		return bucket.Object{}, errBroken
	}
	o := bucket.Object{Name: name, Data: []byte(b.data), Version: b.current()}
	if err := b.answered(ctx); err != nil {
		return bucket.Object{}, err
	}
	if o.Version == "" {
		return bucket.Object{}, bucket.ErrAbsent
	}
	return o, nil
}

func (b *turns) change(ctx context.Context, expect string, f func()) (err error) {
	defer func() {
		if errors.Is(err, errBroken) {
			of(ctx).broken++
		}
	}()
	if !b.step(ctx) {
		return errBroken
	}
	right := b.current() == expect
	if right {
		f()
	}
	if err := b.answered(ctx); err != nil {
		return err
	}
	if !right {
		return bucket.ErrChanged
	}
	return nil
}

func (b *turns) Swap(ctx context.Context, _ string, data []byte, expect string) (version string, err error) {
	err = b.change(ctx, expect, func() {
		b.made++
		b.data, b.version = string(data), b.made
		version = b.current()
	})
	return version, err
}

func (b *turns) Remove(ctx context.Context, _, expect string) error {
	return b.change(ctx, expect, func() { b.data, b.version = "", 0 })
}

func (b *turns) List(context.Context, string) ([]bucket.Object, error) { return nil, nil }
func (b *turns) Close() error                                          { return nil }

// done is a call of a client, as the client saw it.
type done struct {
	what       string // get, put, delete
	data       string // written or read; "": absent
	expect     string // the data that the version belongs to which was expected
	from, till int
	kind       errs.Kind
	ok         bool
}

func (d done) String() string {
	out := fmt.Sprintf("%d-%d %s %q", d.from, d.till, d.what, d.data)
	if d.what != "get" {
		out += fmt.Sprintf(" over %q", d.expect)
	}
	if !d.ok {
		out += " " + d.kind.String()
	}
	return out
}

// never is later than all that is done.
const never = 1 << 30

// can says what a document becomes by d at one moment, if its answer is right for that moment.
func (d done) can(state string) (next string, ok bool) {
	switch {
	case d.what == "get":
		return state, d.ok && d.data == state || !d.ok && (d.kind != errs.NotFound || state == "")
	case d.ok && d.expect == state, d.ok && d.what == "delete" && state == "": // by a try that got no answer, or by another
		return d.data, true
	case !d.ok && d.kind == errs.Unavailable && d.expect == state:
		return d.data, true
	case !d.ok && d.kind == errs.Conflict:
		return state, d.expect != state
	case !d.ok && d.kind == errs.NotFound:
		return state, state == ""
	}
	return state, false
}

// linear looks for an order of the calls in which each took place at one moment between its beginning
// and its end. One whose outcome is unknown may take place at any time after its beginning, or never.
func linear(calls []done, state string, seen map[string]bool) bool {
	var key strings.Builder
	left, first := 0, never
	for _, d := range calls {
		fmt.Fprint(&key, d.from, ",")
		if unknown := !d.ok && d.kind == errs.Unavailable; !unknown {
			left++
			first = min(first, d.till)
		}
	}
	if left == 0 {
		return true
	}
	key.WriteString(state)
	if seen[key.String()] {
		return false
	}
	seen[key.String()] = true
	for i, d := range calls {
		if d.from > first {
			continue // another one had ended before it began
		}
		if next, ok := d.can(state); ok && linear(slices.Delete(slices.Clone(calls), i, i+1), next, seen) {
			return true
		}
	}
	return false
}

// clients lets some clients call at random, one step of one of them after the other, and returns what
// they saw.
func clients(ctx context.Context, s *Store, b *turns, rnd *rand.Rand) []done {
	tick, running := 0, 0
	var all []done
	recreated, deleted := false, false
	var mu sync.Mutex // guards all that is above
	now := func() int { mu.Lock(); defer mu.Unlock(); tick++; return tick }
	call := func(who int) {
		defer func() { mu.Lock(); defer mu.Unlock(); running-- }()
		known, version := "", Version("")
		for n := range 2 + rnd.IntN(3) {
			d := done{from: now(), what: []string{"get", "put", "put", "delete"}[rnd.IntN(4)], expect: known}
			if d.what == "delete" && version == "" {
				d.what = "get"
			}
			var err error
			me := &caller{who: who}
			ctx := context.WithValue(ctx, callerKey{}, me)
			switch d.what {
			case "get":
				var doc Doc
				doc, err = s.Get(ctx, "doc")
				known, version, d.data = string(doc.Data), doc.Version, string(doc.Data)
			case "put":
				d.data = fmt.Sprint(who, "-", n)
				var v Version
				if v, err = s.Put(ctx, "doc", []byte(d.data), version); err == nil {
					known, version = d.data, v
				}
			case "delete":
				if err = s.Delete(ctx, "doc", version); err == nil {
					known, version = "", ""
				}
			}
			d.till, d.ok, d.kind = now(), err == nil, errs.KindOf(err)
			mu.Lock()
			all = append(all, d)
			recreated = recreated || d.what == "put" && d.expect == "" && me.broken > 0
			deleted = deleted || d.what == "delete"
			mu.Unlock()
		}
	}
	running = callers
	for who := range callers {
		go call(who)
		synctest.Wait()
	}
	for running > 0 { // all wait when it is looked
		if !b.letGo() {
			time.Sleep(50 * time.Millisecond) // until one tries again
		}
		synctest.Wait()
	}
	if recreated && deleted {
		// There is no telling a document that was never made from one that somebody deleted at once: a try
		// that got no answer may have made it, and the one after it makes it again.
		return nil
	}
	return all
}

// TestAtAnyScheduleADocumentIsAsIfOneCallWasMadeAfterTheOther checks what clients see of a document
// whose calls interleave, break and lose their answers, against a document that is changed by one call
// at a time.
func TestAtAnyScheduleADocumentIsAsIfOneCallWasMadeAfterTheOther(t *testing.T) {
	seeds.Run(t, 60, func(t *testing.T, rnd *rand.Rand) {
		synctest.Test(t, func(t *testing.T) {
			b := &turns{rnd: rnd}
			all := clients(t.Context(), New(b, Prefix, prometheus.NewRegistry()), b, rnd)
			for i := range all {
				if !all[i].ok && all[i].kind == errs.Unavailable {
					all[i].till = never
				}
			}
			if !linear(all, "", map[string]bool{}) {
				var text []string
				for _, d := range all {
					text = append(text, d.String())
				}
				t.Fatalf("no order of these calls explains what was seen:\n%s", strings.Join(text, "\n"))
			}
		})
	})
}
