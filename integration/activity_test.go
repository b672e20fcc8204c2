package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// A process that is killed over a query names it when it starts again: the request, and its evaluation.
func TestAKilledProcessNamesTheQueriesThatItWasAt(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 3*time.Minute)
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Files: true, Replicas: 1, Nodes: []harness.Spec{
		{Name: "ingester", Target: "ingester"},
		{Name: "rest", Target: "distributor,query-frontend,query-scheduler,querier,store-gateway"},
	}})
	rest, ingester := c.Node("rest"), c.Node("ingester")
	text := func() string {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(rest.LogFile), "data", "activity"))
		must(t, err)
		return string(b)
	}

	// Who asks before the process has found itself and the ingester is told to come again. It is another tenant: what
	// it asked is to be seen in the file for a while.
	settled(ctx, t, []*harness.Node{rest}, "ingester")
	eventually(ctx, t, "queries to be answered", func() error {
		_, err := matrix(ctx, rest.URL(""), "early", "x", time.Now().UnixMilli())
		return err
	})

	// The ingester stands still, so that the query hangs.
	must(t, freeze(ctx, ingester))
	asked, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		req, err := http.NewRequestWithContext(asked, http.MethodPost, rest.URL("/prometheus/api/v1/query?access_token=s3cret"), strings.NewReader("query=sum(hungry)&X-Amz-Signature=s3cret"))
		if err == nil {
			req.Header.Set("X-Scope-OrgID", "team-a")
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			var resp *http.Response
			if resp, err = http.DefaultClient.Do(req); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				err = errors.Join(fmt.Errorf("answered with %d", resp.StatusCode), resp.Body.Close())
			}
		}
		ended <- err
	}()
	eventually(ctx, t, "the query to be evaluated", func() error {
		select {
		case err := <-ended:
			t.Fatalf("the query ended: %v", err)
		default:
		}
		if got := text(); !strings.Contains(got, "evaluation tenant=team-a") {
			return errors.New("the query is not being evaluated")
		}
		return nil
	})
	must(t, rest.Kill())
	if err := <-ended; err == nil {
		t.Error("the query was answered by a process that was killed")
	}
	must(t, ingester.Signal(syscall.SIGCONT))
	must(t, rest.Start())
	must(t, rest.WaitReady(ctx))

	b, err := os.ReadFile(rest.LogFile)
	must(t, err)
	for _, want := range []string{
		`request="POST /prometheus/api/v1/query tenant=team-a query=sum(hungry)"`,
		`request="evaluation tenant=team-a start=`, ` query=sum(hungry)"`,
		"request was under way when a process ended without stopping", `of="distributor,query-frontend,`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("the log does not have %q", want)
		}
	}
	if strings.Contains(string(b), "s3cret") || strings.Contains(text(), "s3cret") {
		t.Error("credentials are told")
	}
	if strings.Contains(text(), "hungry") {
		t.Error("what was told stays in the file")
	}
	metrics := call(ctx, t, http.MethodGet, rest.URL("/metrics"), nil)
	for _, want := range []string{"amphora_activity_tracker_free_slots 1024", "amphora_activity_tracker_left_requests ", `amphora_activity_tracker_failed_total{reason="write"} 0`} {
		if !strings.Contains(metrics.body, want) {
			t.Errorf("the metrics do not have %q", want)
		}
	}
	// A process that is told to stop leaves nothing.
	must(t, rest.Stop())
	if info, err := os.Stat(filepath.Join(filepath.Dir(rest.LogFile), "data", "activity")); err != nil || info.Size() != 0 {
		t.Errorf("after a stop the file is %v, %v", info, err)
	}
	must(t, rest.Start())
	must(t, rest.WaitReady(ctx))
}
