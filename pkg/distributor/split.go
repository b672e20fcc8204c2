package distributor

import (
	"bytes"
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

const (
	// maxTenantsPerPush bounds the tenants that one request is split into.
	maxTenantsPerPush = 1000

	// partsAtOnce is how many of them are pushed at the same time.
	partsAtOnce = 64

	// keptTargets bounds the values of labels whose tenant is remembered.
	keptTargets = 10_000

	// keptRows is the capacity up to which a part keeps its memory for the next push.
	keptRows = 1 << 12
)

// splitter says which tenant a series that one tenant sends belongs to, by the labels it has. It is
// made anew when the tenant's limits change.
type splitter struct {
	rules    []limits.TenantRule
	allowed  []string
	fallback target // of series that no rule is about
	remove   bool

	seen *destinations

	mu     sync.RWMutex      // guards byName
	byName map[string]target // by the value of a label that names a tenant
}

// target is where a series goes.
type target struct {
	tenant tenant.ID // empty: nowhere, its tenant is not allowed
	cut    uint8     // number plus one of the rule whose label is removed; 0: none
}

// newSplitter returns nil for a tenant whose series are all its own, and old if nothing is different.
func newSplitter(own tenant.ID, v limits.View, old *splitter, b *budget) *splitter {
	rules, err := limits.ParseTenantRules(limits.TenantFromLabelRules.Of(v))
	if err != nil || len(rules) == 0 { // the table takes no rules that cannot be parsed
		return nil
	}
	s := &splitter{rules: rules, allowed: append([]string{string(own)}, limits.TenantFromLabelAllowed.Of(v)...),
		fallback: target{tenant: own}, remove: limits.TenantFromLabelRemove.Of(v), byName: map[string]target{}}
	if name := limits.TenantFromLabelDefault.Of(v); name != "" {
		s.fallback.tenant = tenant.ID(name)
	}
	if old != nil && slices.Equal(s.rules, old.rules) && slices.Equal(s.allowed, old.allowed) && s.fallback == old.fallback && s.remove == old.remove {
		return old
	}
	s.seen = newDestinations(b)
	return s
}

// finish ends the use of s for pushes to come. s may be nil.
func (s *splitter) finish() {
	if s != nil {
		s.seen.finish()
	}
}

// find returns what finds the labels of the rules in b.
func (s *splitter) find(b *remotewrite.Batch) []remotewrite.Finder {
	out := make([]remotewrite.Finder, len(s.rules))
	for k := range s.rules {
		out[k] = b.Find(s.rules[k].Label)
	}
	return out
}

// of returns where series i goes. The first rule that is about it decides. last is what the
// series before said, which is mostly what this one says, too.
func (s *splitter) of(find []remotewrite.Finder, i int, last *lastName) target {
	value := []byte(nil)
	for k := range s.rules {
		r := &s.rules[k]
		if k == 0 || r.Label != s.rules[k-1].Label {
			value = find[k].Value(i)
		}
		if value == nil || r.Value != "" && r.Value != string(value) {
			continue
		}
		cut := uint8(0)
		if s.remove {
			cut = uint8(k + 1)
		}
		if r.Tenant != "" {
			return target{r.Tenant, cut}
		}
		if last.rule != k+1 || !bytes.Equal(last.value, value) {
			last.rule, last.value, last.target = k+1, value, s.named(value, cut)
		}
		return last.target
	}
	return s.fallback
}

// lastName is the last value of a label that named a tenant.
type lastName struct {
	rule   int // plus one
	value  []byte
	target target
}

// named returns the tenant that value names, if it is allowed.
func (s *splitter) named(value []byte, cut uint8) target {
	s.mu.RLock()
	t, ok := s.byName[string(value)]
	s.mu.RUnlock()
	if !ok {
		t = target{}
		if id, err := tenant.Parse(string(value)); err == nil && s.allows(id) {
			t.tenant = id
		}
		s.mu.Lock()
		if len(s.byName) >= keptTargets {
			clear(s.byName)
		}
		s.byName[string(value)] = t
		s.mu.Unlock()
	}
	if t.tenant != "" {
		t.cut = cut
	}
	return t
}

// allows says whether the list has id. An entry that ends in * stands for all that begin so.
func (s *splitter) allows(id tenant.ID) bool {
	return slices.ContainsFunc(s.allowed, func(entry string) bool {
		if prefix, ok := strings.CutSuffix(entry, "*"); ok {
			return strings.HasPrefix(string(id), prefix)
		}
		return entry == string(id)
	})
}

// splitState says what part of a request a push is.
type splitState struct {
	part  *part // nil: all of it
	rules []limits.TenantRule
	same  bool // it is of the tenant that sent the request, which is counted already
	done  bool // this push went on as parts
}

// part is what one tenant gets of a push.
type part struct {
	tenant tenant.ID
	rows   []uint32
	cuts   []uint8 // rule of the label to remove, by row; empty: none

	written remotewrite.Written
	err     error
}

// partList is the parts of one push; it keeps their memory for the next one.
type partList struct {
	list  []*part
	spare []*part

	at map[tenant.ID]*part
	// to is the number of the target of each series, and of the part by that number, nil if no series
	// of this push went there before.
	to []uint32
	of []*part
}

func (l *partList) add(id tenant.ID) *part {
	pt := &part{}
	if n := len(l.spare); n > 0 {
		pt, l.spare = l.spare[n-1], l.spare[:n-1]
	}
	pt.tenant = id
	l.list = append(l.list, pt)
	return pt
}

// reset forgets the parts.
func (l *partList) reset() {
	for _, pt := range l.list {
		if cap(pt.rows) <= keptRows && len(l.spare) < maxTenantsPerPush {
			*pt = part{rows: pt.rows[:0], cuts: pt.cuts[:0]}
			l.spare = append(l.spare, pt)
		}
	}
	clear(l.list)
	clear(l.of)
	clear(l.at)
	l.list, l.of = l.list[:0], l.of[:0]
}

// enter returns the part of a tenant, nil if there are too many.
func (l *partList) enter(id tenant.ID) *part {
	pt := l.at[id]
	if pt == nil && len(l.at) < maxTenantsPerPush {
		pt = l.add(id)
		if l.at == nil {
			l.at = make(map[tenant.ID]*part)
		}
		l.at[id] = pt
	}
	return pt
}

// enterTarget is enter for the tenant of target n.
func (l *partList) enterTarget(n uint32, id tenant.ID) *part {
	if n == 0 {
		return l.enter(id)
	}
	if have := len(l.of); int(n) >= have {
		l.of = slices.Grow(l.of, int(n)+1-have)[:n+1]
		clear(l.of[have:])
	}
	if l.of[n] == nil {
		l.of[n] = l.enter(id)
	}
	return l.of[n]
}

// splitByLabel pushes the series of this request for the tenants that their labels say, if its
// tenant has rules for that. Each part is a push of its own, under the limits of its tenant.
func (p *push) splitByLabel(ctx context.Context) error {
	s := p.lim.split
	if s == nil || p.split.part != nil || p.source == frame.Rule {
		return nil
	}
	parts := p.partition(s)
	if len(parts) == 1 && parts[0].tenant == p.t.id && len(parts[0].cuts) == 0 && p.first == nil {
		return nil // nothing to split
	}
	p.split.done = true
	p.t.metrics.samplesIn.Add(float64(p.refused[tenantNotAllowed]))
	p.countRefused()
	if len(parts) == 1 && p.first == nil {
		p.runPart(ctx, parts[0], true)
	} else {
		p.runParts(ctx, parts)
	}
	return p.combine(parts)
}

// partition finds the tenant of every series. What belongs to no series goes to the fallback.
func (p *push) partition(s *splitter) []*part {
	l := &p.parts
	if p.batch.MetadataCount() > 0 || p.batch.Len() == 0 {
		l.enter(s.fallback.tenant)
	}
	l.to = resized(l.to, p.batch.Len())
	targets := s.seen.look(p.batch.Hashes, l.to)
	var find []remotewrite.Finder
	var last lastName
	for i, n := range l.to {
		var t target
		if n > 0 {
			t = targets[n-1]
		} else {
			if find == nil {
				find = s.find(&p.batch)
			}
			t = s.of(find, i, &last)
			n = s.seen.remember(p.batch.Hashes[i], t)
		}
		if t.tenant == "" {
			p.refuseTenant(i, "names a tenant that tenant "+string(p.t.id)+" may not write for")
			continue
		}
		pt := l.enterTarget(n, t.tenant)
		if pt == nil {
			p.refuseTenant(i, "is of one more tenant than a request may have series for")
			continue
		}
		pt.rows = append(pt.rows, uint32(i))
		if t.cut > 0 || len(pt.cuts) > 0 {
			for len(pt.cuts) < len(pt.rows)-1 {
				pt.cuts = append(pt.cuts, 0)
			}
			pt.cuts = append(pt.cuts, t.cut)
		}
	}
	return l.list
}

func (p *push) refuseTenant(i int, why string) {
	p.refuse(i, tenantNotAllowed, p.samplesOf(i), func() error {
		return tenantNotAllowed.errorf("series %s %s", p.seriesText(i), why)
	})
}

// runParts pushes parts, several at once.
func (p *push) runParts(ctx context.Context, parts []*part) {
	var wg sync.WaitGroup
	var next atomic.Int64
	work := func() {
		for k := next.Add(1) - 1; k < int64(len(parts)); k = next.Add(1) - 1 {
			p.tryPart(ctx, parts[k])
		}
	}
	for range min(len(parts), partsAtOnce) - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
}

// tryPart pushes one part. A panic fails the request and not the process, as in the goroutine that
// the server watches.
func (p *push) tryPart(ctx context.Context, pt *part) {
	defer func() {
		if r := recover(); r != nil {
			p.d.deps.Logger.Error("part of a push panicked, the request is answered 500", "tenant", pt.tenant, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			pt.err = errs.New(errs.Internal, "internal error, see the log of the process")
		}
	}()
	p.runPart(ctx, pt, false)
}

// runPart pushes one part. The only one takes the batch over as it is.
func (p *push) runPart(ctx context.Context, pt *part, only bool) {
	d := p.d
	if pt.err = d.checkKnown(ctx, pt.tenant, p.source); pt.err != nil {
		return
	}
	c := d.pushes.Get().(*push)
	d.underWay.Add(1)
	c.start(d.tenants.enter(pt.tenant, p.tick), p.source, p.req)
	defer c.finish()
	c.split = splitState{part: pt, rules: p.lim.split.rules, same: pt.tenant == p.t.id}
	if only {
		c.batch, p.batch = p.batch, c.batch
	} else {
		c.batch.Select(&p.batch, pt.rows, pt.tenant == p.lim.split.fallback.tenant)
	}
	c.hashCut()
	pt.written, pt.err = c.run(ctx)
}

// hashCut sets apart the hashes of series that lose a label.
func (p *push) hashCut() {
	rule, name := uint8(0), remotewrite.Hash{}
	for i, cut := range p.split.part.cuts {
		if cut == 0 {
			continue
		}
		if cut != rule {
			rule, name = cut, p.d.keys.Name(p.split.rules[cut-1].Label)
		}
		p.batch.Hashes[i] = p.d.keys.Without(p.batch.Hashes[i], name)
	}
}

// cutLabel returns the n labels of series i, of which ls are the first, without the one that said
// whose the series is. A label that occurs twice stays, for which the series is refused.
func (p *push) cutLabel(i int, ls []remotewrite.Label, n int) ([]remotewrite.Label, int) {
	pt := p.split.part
	if pt == nil || len(pt.cuts) == 0 || pt.cuts[i] == 0 {
		return ls, n
	}
	name := p.split.rules[pt.cuts[i]-1].Label
	is := func(l remotewrite.Label) bool { return string(l.Name) == name }
	at := slices.IndexFunc(ls, is)
	if at < 0 || slices.ContainsFunc(ls[at+1:], is) {
		return ls, n
	}
	return slices.Delete(ls, at, at+1), n - 1
}

// combine adds up what became of the parts. The client is told the failure that matters most to
// what it does next.
func (p *push) combine(parts []*part) error {
	worst := p.first
	for k, pt := range parts {
		p.counts.Samples += pt.written.Samples
		p.counts.Histograms += pt.written.Histograms
		p.counts.Exemplars += pt.written.Exemplars
		if k == 0 && worst == nil || severity(pt.err) > severity(worst) {
			worst = pt.err
		}
	}
	p.first = worst
	return nil
}

// severity orders the answers of parts: what must be sent again comes before what can never be
// stored, since the sender must not drop the former for the latter.
func severity(err error) int {
	switch {
	case err == nil:
		return 1
	case errs.KindOf(err) == errs.Accepted:
		return 0 // nothing of this part had to be stored; what became of the others counts
	case errs.KindOf(err) == errs.RateLimited:
		return 3
	case errs.KindOf(err).Retry(), errs.KindOf(err) == errs.Canceled:
		return 4
	}
	return 2
}
