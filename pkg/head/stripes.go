package head

import "math/bits"

const (
	// minStripes is the number of stripes of the series maps of a head of unknown or small size. A
	// stripe costs some 250 bytes even when empty, and as much again with its first series.
	minStripes = 16
	// maxStripes keeps what an overestimate can cost at 32 MiB.
	maxStripes = 1 << 17
	// seriesPerStripe is how many series the map of a stripe holds in one piece. A batch walks its
	// series in the order of their references, which are dealt to the stripes in turn: the larger the
	// maps, the more a look-up waits for memory. With 100,000 series an append costs 480 cpu-ns with
	// 4,096 stripes, 350 with 8,192, 300 with 16,384 and no less with more.
	seriesPerStripe = 8
)

// StripesFor is the number of stripes of a head that is to hold about n series; heads of the same
// number need not be told apart.
func StripesFor(n uint64) int {
	wanted := min(n/seriesPerStripe, maxStripes)
	if wanted <= minStripes {
		return minStripes
	}
	return 1 << bits.Len64(wanted-1)
}
