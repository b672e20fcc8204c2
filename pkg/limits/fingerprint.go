package limits

import (
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Fingerprint tells views apart in which a limit differs that any of the rooms enforces.
func (v View) Fingerprint(rooms ...string) uint64 {
	h := xxhash.New()
	for i, r := range Table {
		if !slices.ContainsFunc(r.By, func(by string) bool { return slices.Contains(rooms, by) }) {
			continue
		}
		_, _ = h.WriteString(r.Name) // it never fails
		_, _ = h.WriteString("\xff")
		_, _ = h.WriteString(format(v.Value(i)))
		_, _ = h.WriteString("\xff")
	}
	return h.Sum64()
}
