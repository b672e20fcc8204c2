package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestInfluxLinesAreStored writes as clients of InfluxDB 1 and 2 do and asks for the samples.
func TestInfluxLinesAreStored(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, time.Minute)
	n := everything(ctx, t)
	at := time.Now().Truncate(time.Second)
	for tenant, path := range map[string]string{"one": "/write?db=telegraf&precision=s", "two": "/api/v2/write?org=o&bucket=b&precision=s"} {
		lines := fmt.Sprintf("disk\\ io,host=web-1,path=/var reads=5i,busy=t,note=\"a, b\" %d\nbad line\ndisk\\ io,host=web-2,path=/var reads=7i %d\n", at.Unix(), at.Unix())
		r := call(ctx, t, http.MethodPost, n.URL("/api/v1/push/influx"+path), []byte(lines), "X-Scope-OrgID", tenant, "Content-Type", "text/plain; charset=utf-8")
		if r.status != http.StatusBadRequest || !strings.Contains(r.body, "line 2: ") {
			t.Errorf("%s: with a bad line: %s", path, r)
		}
		r = call(ctx, t, http.MethodPost, n.URL("/api/v1/push/influx"+path), []byte("up,host=web-1 value=1"), "X-Scope-OrgID", tenant)
		if r.status != http.StatusNoContent || r.body != "" {
			t.Errorf("%s: %s", path, r)
		}
		for expr, want := range map[string]float64{
			`disk_io_reads{host="web-1",path="/var"}`: 5, `disk_io_busy`: 1, `sum(disk_io_reads)`: 12, `count({__name__=~"disk.+"})`: 3,
		} {
			if got, err := scalar(ctx, n.URL(""), tenant, expr, at); err != nil || got != want {
				t.Errorf("%s: %s is %g, %v; want %g", path, expr, got, err, want)
			}
		}
		if got, err := scalar(ctx, n.URL(""), tenant, `up_value`, time.Now().Add(time.Second)); err != nil || got != 1 {
			t.Errorf("%s: a line without time: %g, %v", path, got, err)
		}
	}
	if n := scrape(ctx, t, n.URL("/metrics"), "amphora_distributor_influx_requests_total", "user", "one"); n != 2 {
		t.Errorf("%g requests counted, want 2", n)
	}
}
