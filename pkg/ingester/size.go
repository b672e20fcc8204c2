package ingester

import (
	"path/filepath"

	"github.com/amphora-metrics/amphora/pkg/head"
)

// sizeFile in a tenant's directory says how large its head was, because a head is laid out for its
// size when it is opened, before its samples are read back.
const sizeFile = "size.json"

type headSize struct{ Series uint64 }

// firstSeries is the size that the first tenants of a process are laid out for while nothing is
// known of them; each further group of groupTenants for half of it. All of them together take 16 MB
// more than with the least size, and a process of one or few large tenants is quick at once.
const (
	firstSeries  = 128 << 10
	groupTenants = 2
)

// expectedSeries is about how many series the tenant's head will hold, as one of the numbers that
// make a difference to it.
func (i *Ingester) expectedSeries(dir string, open int) uint64 {
	var s headSize
	if err := readJSON(filepath.Join(dir, sizeFile), &s); err != nil {
		i.log.Warn("size of a head not readable, it is laid out as that of a new tenant", "dir", dir, "err", err)
	}
	if s.Series > 0 {
		return s.Series
	}
	return firstSeries >> min(open/groupTenants, 63)
}

// noteSize writes the size down when the head should be laid out for another one. Calls must not
// overlap.
func (t *tenantHead) noteSize() {
	if !t.enter() {
		return
	}
	defer t.leave()
	n := t.head.NumSeries()
	if n == 0 || head.StripesFor(n) == head.StripesFor(t.sized) {
		return
	}
	if err := writeJSON(t.dir, sizeFile, headSize{n}); err != nil {
		t.ing.log.Warn("size of a head not written, it may be laid out for another size at the next start", "tenant", t.id, "err", err)
		return
	}
	t.sized = n
}
