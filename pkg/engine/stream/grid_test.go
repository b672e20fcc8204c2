package stream

import "testing"

// TestOneEvaluationAsksForRoomForOnePoint: storage charges a query for the points of all steps that it is
// told of.
func TestOneEvaluationAsksForRoomForOnePoint(t *testing.T) {
	if got := (grid{start: 5, step: 1, n: 1}).hint(); got != 0 {
		t.Errorf("one evaluation hints a step of %d ms", got)
	}
	if got := (grid{start: 5, step: 1000, n: 2}).hint(); got != 1000 {
		t.Errorf("a range hints a step of %d ms, want 1000", got)
	}
}
