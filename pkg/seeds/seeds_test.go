package seeds

import (
	"math/rand/v2"
	"testing"
)

func TestEachSeedIsAlwaysTheSame(t *testing.T) {
	t.Setenv(seedVariable, "")
	t.Setenv(timeVariable, "")
	runs := [2][]uint64{}
	for i := range runs {
		Run(t, 3, func(_ *testing.T, rnd *rand.Rand) { runs[i] = append(runs[i], rnd.Uint64()) })
	}
	if len(runs[0]) != 3 || runs[0][0] == runs[0][1] {
		t.Errorf("runs = %v", runs)
	}
	for k := range runs[0] {
		if runs[0][k] != runs[1][k] {
			t.Errorf("seed %d is %d and %d", k, runs[0][k], runs[1][k])
		}
	}
	t.Setenv(seedVariable, "2")
	Run(t, 3, func(_ *testing.T, rnd *rand.Rand) {
		if got := rnd.Uint64(); got != runs[0][2] {
			t.Errorf("the seed repeats as %d, want %d", got, runs[0][2])
		}
	})
}

func TestSeedsOfChanceAreTriedForAsLongAsAsked(t *testing.T) {
	t.Setenv(seedVariable, "")
	t.Setenv(timeVariable, "20ms")
	seen := map[uint64]bool{}
	Run(t, 0, func(_ *testing.T, rnd *rand.Rand) {
		seen[rnd.Uint64()] = true
	})
	if len(seen) == 0 {
		t.Error("none was tried")
	}
}
