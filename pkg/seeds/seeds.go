// Package seeds owns running tests from seeds: the same few on every run, random ones on request, and
// a single one to repeat a failure. Only tests import it.
package seeds

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// What a run is told by: which one seed to repeat, or for how long to try seeds of chance.
const (
	seedVariable = "AMPHORA_TEST_SEED"
	timeVariable = "AMPHORA_TEST_SIMULATE"
)

// Run calls try for the seeds 0 to n-1, each as a subtest that is named after it and has a random
// source of its own, and ends with the first that fails. If the environment names a seed it is only
// that one; if it names a duration, seeds of chance for so long.
func Run(t *testing.T, n int, try func(t *testing.T, rnd *rand.Rand)) {
	t.Helper()
	one := func(seed uint64) bool {
		return t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("to see it again: %s=%d go test -run '^%s$'", seedVariable, seed, t.Name())
				}
			})
			try(t, rand.New(rand.NewPCG(seed, 0))) //nolint:gosec // Reproducible on purpose.
		})
	}
	if text := os.Getenv(seedVariable); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("%s=%s is not a seed", seedVariable, text)
		}
		one(seed)
		return
	}
	if text := os.Getenv(timeVariable); text != "" {
		for end := time.Now().Add(length(t, text)); time.Now().Before(end); {
			if !one(rand.Uint64()) { //nolint:gosec // Chance is all that is wanted.
				return
			}
		}
		return
	}
	for seed := range uint64(n) {
		if !one(seed) {
			return
		}
	}
}

func length(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		t.Fatalf("%s=%s is not a length of time", timeVariable, text)
	}
	return d
}
