package members

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/dskit/ring"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestTokensThatWentToAnotherAreReplaced merges the entries of two members that started with the same tokens in the
// same moment, as the ring does: the one that loses them chooses others, and keeps them.
func TestTokensThatWentToAnotherAreReplaced(t *testing.T) {
	for _, c := range []struct {
		name, own string
		same      int // tokens that both have, of 8
		want      int // tokens that are replaced
	}{
		{"all", "a a ACTIVE 1s", 8, 8},
		{"some", "a a ACTIVE 1s", 3, 3},
		{"none", "a a ACTIVE 1s", 0, 0},
		{"it stops", "a a LEAVING 1s", 8, 0},
		{"the entry is another process's", "a a ACTIVE 1s at=b:1", 8, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newKeeper(t, true)
			d := desc(time.Now(), "0 a ACTIVE 1s", c.own)
			mine, other := d.Ingesters["a"], d.Ingesters["0"]
			copy(mine.Tokens[:c.same], other.Tokens)
			slices.Sort(mine.Tokens)
			d.Ingesters["a"] = mine
			merged := ring.NewDesc()
			if _, err := merged.Merge(d, false); err != nil {
				t.Fatal(err)
			}
			left := ring.Tokens(slices.Clone(merged.Ingesters["a"].Tokens))
			if len(left) != 8-c.same {
				t.Fatalf("the ring left it %d tokens", len(left))
			}
			if err := k.store.CAS(t.Context(), "ring", func(any) (any, bool, error) { return merged, true, nil }); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "tokens")
			k.deps.Share = Share{Number: 8, File: file, Generator: newBalancedTokens("a", "a", true)}
			for range 2 { // the second time there is nothing to do
				if err := k.round(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			now, err := load(t.Context(), k.store, "ring")
			if err != nil {
				t.Fatal(err)
			}
			got := ring.Tokens(now.Ingesters["a"].Tokens)
			if len(got) != len(left)+c.want || !slices.IsSorted(got) || slices.ContainsFunc(left, func(x uint32) bool { return !slices.Contains(got, x) }) {
				t.Errorf("it has %v, want %d beside %v", got, c.want, left)
			}
			if slices.ContainsFunc(got, func(x uint32) bool { return slices.Contains(other.Tokens, x) }) {
				t.Errorf("it has tokens of the other: %v", got)
			}
			if theirs := now.Ingesters["0"].Tokens; !slices.Equal(theirs, other.Tokens) {
				t.Errorf("the other has %v, want %v", theirs, other.Tokens)
			}
			if n := testutil.ToFloat64(k.metrics.tokens); n != float64(c.want) {
				t.Errorf("%g tokens were replaced, want %d", n, c.want)
			}
			kept, err := ring.LoadTokensFromFile(file)
			if c.want > 0 && (err != nil || !slices.Equal(kept, got)) {
				t.Errorf("the file has %v, %v; want %v", kept, err, got)
			}
			if told := strings.Contains(k.logged.String(), "chosen new ones"); told != (c.want > 0) {
				t.Errorf("told: %t:\n%s", told, k.logged)
			}
		})
	}
}
