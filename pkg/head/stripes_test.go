package head

import "testing"

func TestStripesGrowWithTheSeriesWithinBounds(t *testing.T) {
	for n, want := range map[uint64]int{0: 16, 256: 16, 272: 32, 528: 64, 2048: 128, 2064: 256, 100_000: 8192, 200_000: 16384, 1 << 40: 1 << 16} {
		if got := StripesFor(n); got != want {
			t.Errorf("StripesFor(%d) = %d, want %d", n, got, want)
		}
	}
}
