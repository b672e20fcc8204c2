package ingester

import (
	"strconv"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/head"
)

func TestAHeadIsLaidOutForTheSizeItHad(t *testing.T) {
	dir := t.TempDir()
	i := &Ingester{}
	if got := i.expectedSeries(dir, 0); got != firstSeries {
		t.Errorf("the first tenant is laid out for %d series, want %d", got, firstSeries)
	}
	extra := 0
	for n := range 10_000 {
		extra += head.StripesFor(i.expectedSeries(dir, n)) - head.StripesFor(0)
	}
	if bytes := extra * 250; bytes > 16<<20 {
		t.Errorf("10,000 tenants of unknown size take %d bytes more than with the least size", bytes)
	}
	h, err := head.Open(head.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	app := h.Appender()
	for n := range 5000 {
		if _, err := app.Append(0, metric("m", "n", strconv.Itoa(n)), 1, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	tenant := &tenantHead{dir: dir, ing: i, head: h}
	tenant.noteSize()
	if got := i.expectedSeries(dir, 1000); got != 5000 {
		t.Errorf("laid out for %d series, want the 5000 it had", got)
	}
}
