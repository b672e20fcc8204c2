package integration

import (
	"os"
	"strconv"
	"testing"
)

// roundsVariable makes the tests that repeat a fault do so that many times instead of the few that
// every change can wait for; `make faults` sets it.
const roundsVariable = "AMPHORA_TEST_ROUNDS"

// rounds is how often a test repeats its fault.
func rounds(t *testing.T, few int) int {
	t.Helper()
	text := os.Getenv(roundsVariable)
	if text == "" {
		return few
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s is not a number of rounds", roundsVariable, text)
	}
	return n
}
