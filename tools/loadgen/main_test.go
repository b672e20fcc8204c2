package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

func TestASmallRunReportsWhatWasAcknowledged(t *testing.T) {
	var pushes atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("POST /push", func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Header.Get("Authorization") == "Bearer secret" && r.Header.Get("X-Scope-OrgID") == "team" {
			pushes.Add(1)
		}
	})
	mux.HandleFunc("POST /q/api/v1/query", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"data":{"result":[`+strings.TrimSuffix(strings.Repeat(`{"values":[1,2,3]},`, 110), ",")+`]}}`)
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	args := []string{"-url=" + srv.URL + "/push", "-query-url=" + srv.URL + "/q", "-series=110", "-request-samples=50", "-scrapes=3",
		"-ahead=2", "-tenant=team", "-header=Authorization: Bearer secret"}
	var out bytes.Buffer
	if err := run(t.Context(), args, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if pushes.Load() != 9 || !strings.Contains(out.String(), "samples acknowledged 330, refused 0") ||
		!strings.Contains(out.String(), "read back: 110 series, 330 samples") {
		t.Errorf("%d pushes\n%s", pushes.Load(), &out)
	}
	if err := run(t.Context(), append(args, "-scrapes=4"), &out); err == nil {
		t.Error("a quarter of the samples is missing and the run succeeds")
	}
	if err := run(t.Context(), []string{"-churn=2"}, &out); err == nil {
		t.Error("churn of 2 was accepted")
	}
}
