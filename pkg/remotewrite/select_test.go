package remotewrite

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/remotewrite/remotewritetest"
)

func TestALabelIsFoundByItsName(t *testing.T) {
	series := []labels.Labels{
		labels.FromStrings("__name__", "up", "job", "team", "team", "a"),
		labels.FromStrings("__name__", "team", "job", "x"),
		labels.FromStrings("teal", "no", "team", "b", "x", "\n\x04team\x12\x01z"),
	}
	for v, body := range map[Version][]byte{V1: remotewritetest.V1(series, 1, 5), V2: remotewritetest.V2(series, 1, 5)} {
		b := scanned(t, NewKeys(), v, body)
		for i, want := range []string{"a", "", "b"} {
			f := b.Find("team")
			if got := f.Value(i); string(got) != want {
				t.Errorf("v%d series %d: %q, want %q", v, i, got, want)
			}
		}
		f := b.Find("nobody")
		if got := f.Value(0); got != nil {
			t.Errorf("v%d: found %q", v, got)
		}
	}
}

func TestASelectionHasWhatItsSeriesHave(t *testing.T) {
	series := remotewritetest.Series(100)
	k := NewKeys()
	for v, body := range map[Version][]byte{V1: remotewritetest.V1(series, 7, 5), V2: remotewritetest.V2(series, 7, 5)} {
		all := scanned(t, k, v, body)
		var some Batch
		for range 2 { // the second time in used memory
			some.Select(all, []uint32{40, 3}, false)
			if some.Len() != 2 || len(some.Times) != 2 || some.Values[0] != all.Values[40] || some.Hashes[1] != all.Hashes[3] {
				t.Fatalf("v%d: %d series, %v, %v", v, some.Len(), some.Times, some.Values)
			}
			ls, n, err := some.Labels(0, nil, 100)
			if err != nil || n != series[40].Len() || string(ls[0].Value) != series[40].Get(string(ls[0].Name)) {
				t.Errorf("v%d: labels %s, want %s", v, ls, series[40])
			}
			some.Release()
		}
		// Nothing of the selection is written into the memory of what it was taken from.
		if err := some.Scan(k, &Request{Version: v, Body: body}); err != nil || some.Len() != 100 {
			t.Fatal(err)
		}
		if ls, _, err := all.Labels(3, nil, 100); err != nil || string(ls[0].Value) != series[3].Get(string(ls[0].Name)) {
			t.Errorf("v%d: the batch selected from has changed: %s, %v", v, ls, err)
		}
	}
}
