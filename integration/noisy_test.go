package integration

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// loud are pushes that a tenant should not send, by what is wrong with them; n tells one from the next.
func loud() map[string]func(n int) []prompb.TimeSeries {
	many := func(count int, at time.Time, kv func(i int) []string) (out []prompb.TimeSeries) {
		for i := range count {
			out = append(out, floats(at, 1, append([]string{"__name__", "loud"}, kv(i)...)...))
		}
		return out
	}
	return map[string]func(n int) []prompb.TimeSeries{
		"always new series": func(n int) []prompb.TimeSeries {
			return many(500, time.Now(), func(i int) []string { return []string{"new", fmt.Sprint(n, "-", i)} })
		},
		"samples of last week": func(int) []prompb.TimeSeries {
			return many(500, time.Now().Add(-7*24*time.Hour), func(i int) []string { return []string{"old", fmt.Sprint(i)} })
		},
		"labels of a megabyte": func(n int) []prompb.TimeSeries {
			return many(4, time.Now(), func(i int) []string { return []string{"huge", fmt.Sprint(n, i, strings.Repeat("x", 1<<20))} })
		},
		"twenty times its rate": func(int) []prompb.TimeSeries {
			return many(1000, time.Now(), func(i int) []string { return []string{"i", fmt.Sprint(i)} })
		},
	}
}

// noisy has four writers of each kind push as fast as they are answered, until the returned function is
// called, which says how often each kind was answered by which status.
func noisy(ctx context.Context, n *harness.Node) func() map[string]int {
	ctx, cancel := context.WithCancel(ctx)
	var mu sync.Mutex
	answers := map[string]int{}
	var wg sync.WaitGroup
	for what, series := range loud() {
		for w := range 4 {
			wg.Go(func() {
				for k := 0; ctx.Err() == nil; k++ {
					raw, err := (&prompb.WriteRequest{Timeseries: series(k*4 + w)}).Marshal()
					if err != nil {
						panic("BUG: " + err.Error())
					}
					status, _, err := post(ctx, n.URL("/api/v1/push"), "loud", snappy.Encode(nil, raw))
					if ctx.Err() != nil {
						return
					}
					mu.Lock()
					if err != nil {
						status = 0
					}
					answers[fmt.Sprint(what, ": ", status)]++
					mu.Unlock()
				}
			})
		}
	}
	return func() map[string]int { cancel(); wg.Wait(); return answers }
}

// TestATenantThatWritesTooMuchDoesNotStopAnother has a tenant push what is refused, as fast as it is
// refused. Another one's pushes are all stored, and take no longer than a machine that does both takes;
// with AMPHORA_ISOLATION=measure it runs longer, for quiet machines.
func TestATenantThatWritesTooMuchDoesNotStopAnother(t *testing.T) {
	length := 4 * time.Second
	if os.Getenv("AMPHORA_ISOLATION") == "measure" {
		length = 30 * time.Second
	} else {
		t.Parallel()
	}
	ctx := bounded(t, 4*time.Minute)
	file := filepath.Join(t.TempDir(), "overrides.yaml")
	must(t, os.WriteFile(file, []byte("overrides:\n  loud: {ingestion_rate: 5000, ingestion_burst_size: 10000, max_global_series_per_user: 2000}\n"), 0o600))
	n := everything(ctx, t, append(busyFlags(), "-runtime-config.file="+file)...)
	one := func() []string { return []string{n.URL("")} }
	measure := func(id string) *journal {
		j := newJournal(id, one)
		end := j.busy(ctx, 2, one)
		pause(ctx, t, length)
		end().good(t)
		return j
	}
	quiet := measure("team-a")
	peak := peakMemory(t, n)
	stop := noisy(ctx, n)
	beside := measure("team-b")
	answers := stop()
	acked, given := beside.count()
	t.Logf("pushes alone %s; beside the loud tenant %s; %v; the peak of memory rose by %d MiB", &quiet.took, &beside.took, answers, (peakMemory(t, n)-peak)>>20)
	if given > 0 || acked == 0 {
		t.Errorf("%d samples acknowledged, %d given up", acked, given)
	}
	for what, count := range answers {
		// A machine that cannot keep up refuses for now; nothing is broken by that.
		if status := what[len(what)-3:]; status[0] != '2' && status[0] != '4' && status != "503" {
			t.Errorf("%s, %d times", what, count)
		}
	}
	if q, b := quiet.took.quantile(.5), beside.took.quantile(.5); b > max(20*q, 10*time.Second) {
		t.Errorf("half of the pushes take more than %s, alone %s", b, q)
	}
	if r := call(ctx, t, http.MethodGet, n.URL("/prometheus/api/v1/query?query=count(journal)"), nil, "X-Scope-OrgID", "loud"); r.status != 200 || strings.Contains(r.body, `"value"`) {
		t.Errorf("the loud tenant sees %s", r)
	}
	quiet.verify(ctx, t, n.URL(""))
	beside.verify(ctx, t, n.URL(""))
}
