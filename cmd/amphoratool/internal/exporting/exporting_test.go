package exporting

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
)

// wells serves series with a sample for every hour of a day, and breaks off as often as it is told.
type wells struct {
	breaks  int
	refuse  int // a status; 0: none
	message string
	asked   []string
}

func (s *wells) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start, _ := strconv.ParseFloat(r.FormValue("start"), 64)
	end, _ := strconv.ParseFloat(r.FormValue("end"), 64)
	s.asked = append(s.asked, r.FormValue("after"))
	if s.refuse != 0 {
		http.Error(w, "no", s.refuse)
		return
	}
	var out bytes.Buffer
	n := 0
	for i := range 9 {
		metric := fmt.Sprintf(`{"__name__":"m","i":"%d"}`, i)
		if after := r.FormValue("after"); after != "" && metric <= after {
			continue
		}
		for h := range 24 {
			if at := float64(h * 3600); at >= start && at <= end {
				fmt.Fprintf(&out, `{"metric":%s,"values":[%d],"timestamps":[%d]}`+"\n", metric, h, h*3_600_000)
			}
		}
		if n++; s.breaks > 0 && n == 4 { // within the line of a series
			s.breaks--
			_, _ = w.Write(out.Bytes()[:out.Len()-5])
			if s.message != "" {
				_, _ = fmt.Fprintf(w, "\n{\"error\":%q}\n", s.message)
			}
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
	}
	_, _ = w.Write(out.Bytes())
}

// export runs the command and returns what the file has.
func export(t *testing.T, s *wells, file string, more ...string) (string, error) {
	t.Helper()
	return exportFrom(t, s, file, more...)
}

func exportFrom(t *testing.T, s http.Handler, file string, more ...string) (string, error) {
	t.Helper()
	server := httptest.NewServer(s)
	defer server.Close()
	var out bytes.Buffer
	e := &cli.Env{Out: &out, Err: &out, Getenv: func(string) string { return "" }, Log: slog.New(slog.DiscardHandler)}
	app := kingpin.New("t", "").Terminate(nil)
	register(app, e, time.Millisecond)
	args := append([]string{"export", "--address", server.URL, "--selector", "m", "--from", "1970-01-01T00:00:00Z", "--to", "1970-01-01T23:00:00Z", "-o", file}, more...)
	if _, err := app.Parse(args); err != nil {
		t.Fatal(err)
	}
	err := e.Run(t.Context())
	text, _ := os.ReadFile(file)
	return string(text), err
}

// samplesIn are the samples of lines, sorted.
func samplesIn(t *testing.T, text string) []string {
	t.Helper()
	var out []string
	for line := range strings.Lines(text) {
		var l struct {
			Metric             map[string]string
			Values, Timestamps []int64
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		for i := range l.Values {
			out = append(out, fmt.Sprint(l.Metric, l.Values[i], l.Timestamps[i]))
		}
	}
	slices.Sort(out)
	return out
}

func TestAnExportThatBreaksOffGoesOnBehindTheLastSeriesThatIsWhole(t *testing.T) {
	whole, err := export(t, &wells{}, filepath.Join(t.TempDir(), "out"))
	if err != nil || len(samplesIn(t, whole)) != 9*24 {
		t.Fatalf("%d samples, %v", len(samplesIn(t, whole)), err)
	}
	s := &wells{breaks: 2}
	again, err := export(t, s, filepath.Join(t.TempDir(), "out"), "--window", "8h")
	if err != nil || !slices.Equal(samplesIn(t, again), samplesIn(t, whole)) {
		t.Errorf("%d samples, %v", len(samplesIn(t, again)), err)
	}
	if want := `["" "{\"__name__\":\"m\",\"i\":\"2\"}" "{\"__name__\":\"m\",\"i\":\"5\"}" "" ""]`; fmt.Sprintf("%q", s.asked) != want {
		t.Errorf("asked for what comes after %q", s.asked)
	}
}

func TestAnExportThatWasGivenUpGoesOnInItsFile(t *testing.T) {
	whole, err := export(t, &wells{}, filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "out")
	if _, err := export(t, &wells{breaks: 1, message: "the disk is gone"}, file, "--window", "8h"); err == nil || !strings.Contains(err.Error(), "the disk is gone") {
		t.Fatalf("ended with %v", err)
	}
	if _, err := export(t, &wells{refuse: 422}, file, "--window", "8h"); err == nil || !strings.Contains(err.Error(), "422") {
		t.Fatalf("ended with %v", err)
	}
	got, err := export(t, &wells{}, file, "--window", "6h")
	if err != nil || !slices.Equal(samplesIn(t, got), samplesIn(t, whole)) {
		t.Errorf("%d samples, %v", len(samplesIn(t, got)), err)
	}
	if again, err := export(t, &wells{refuse: 500}, file); err != nil || again != got {
		t.Errorf("a whole export was begun again: %v", err)
	}
	if _, err := export(t, &wells{}, file, "--form", "csv"); err == nil {
		t.Error("a file of lines was continued as one of CSV")
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := export(t, &wells{}, other); err == nil || text != "mine" {
		t.Errorf("a file of somebody else was written: %q, %v", text, err)
	}
}

func TestWaitingForAServerEndsWithTheCommand(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := &command{Env: &cli.Env{Log: slog.New(slog.DiscardHandler)}, pause: time.Hour, file: filepath.Join(t.TempDir(), "out"), selector: "m", form: lines}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		cancel()
	}))
	defer server.Close()
	c.server.Address = server.URL
	if err := c.server.OpenFor(time.Minute); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(c.file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := c.insist(ctx, single{f, true}, &state{To: 1000}, 1000); err == nil {
		t.Error("it ended well")
	}
}
