package head

import "testing"

func TestStripesGrowWithTheSeriesWithinBounds(t *testing.T) {
	for n, want := range map[uint64]int{0: 16, 128: 16, 136: 32, 264: 64, 1024: 128, 1032: 256, 100_000: 16384, 200_000: 32768, 1 << 40: 1 << 17} {
		if got := StripesFor(n); got != want {
			t.Errorf("StripesFor(%d) = %d, want %d", n, got, want)
		}
	}
}
