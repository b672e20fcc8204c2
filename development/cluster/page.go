package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

//go:embed page.html
var pageHTML string

// lookTimeout bounds how long the page waits for one process to say how it is.
const lookTimeout = time.Second

// page shows the cluster and does what its buttons say.
type page struct {
	cluster    *harness.Cluster
	prometheus *harness.Prometheus // nil: none
	log        *slog.Logger
	html       *template.Template
	doing      sync.WaitGroup // actions under way

	mu     sync.Mutex // guards frozen
	frozen map[string]bool
}

func newPage(c *harness.Cluster, p *harness.Prometheus, log *slog.Logger) *page {
	return &page{
		cluster: c, prometheus: p, log: log, frozen: map[string]bool{},
		html: template.Must(template.New("page").Parse(pageHTML)),
	}
}

// handler refuses what does not come from the page itself: a name that resolves to loopback, and
// a form of another site.
func (p *page) handler(self string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.show)
	mux.HandleFunc("GET /log/{name}", p.tail)
	mux.HandleFunc("POST /do", p.do)
	guarded := http.NewCrossOriginProtection().Handler(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != self {
			http.Error(w, "this page is served as "+self+" only", http.StatusForbidden)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		guarded.ServeHTTP(w, r)
	})
}

// row is one process on the page.
type row struct {
	Name, Target, Zone string
	PID, Starts        int
	HTTP, GRPC, Gossip int
	Ready              string
	Ring               string
	Frozen             bool
	URL                string
	Actions            []string
}

// actions is what a button does. Each is done in the background, as a stop may take a while.
func (p *page) actions() map[string]func(*harness.Process) error {
	return map[string]func(*harness.Process) error{
		"start":   (*harness.Process).Start,
		"restart": func(n *harness.Process) error { return p.thaw(n, (*harness.Process).Restart) },
		"stop":    func(n *harness.Process) error { return p.thaw(n, (*harness.Process).Stop) },
		"kill -9": func(n *harness.Process) error { return p.thaw(n, (*harness.Process).Kill) },
		"freeze":  func(n *harness.Process) error { p.setFrozen(n.Name, true); return n.Signal(syscall.SIGSTOP) },
		"thaw":    func(n *harness.Process) error { return p.thaw(n, func(*harness.Process) error { return nil }) },
	}
}

// thaw wakes n before what follows; a frozen process cannot stop.
func (p *page) thaw(n *harness.Process, then func(*harness.Process) error) error {
	p.setFrozen(n.Name, false)
	if err := n.Signal(syscall.SIGCONT); err != nil {
		return err
	}
	return then(n)
}

func (p *page) setFrozen(name string, frozen bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen[name] = frozen
}

func (p *page) isFrozen(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.frozen[name]
}

// process returns the process of that name, or nil.
func (p *page) process(name string) *harness.Process {
	if n := p.cluster.Node(name); n != nil {
		return n.Process
	}
	for _, other := range p.others() {
		if other.Name == name {
			return other
		}
	}
	return nil
}

func (p *page) others() []*harness.Process {
	var all []*harness.Process
	if p.cluster.S3 != nil {
		all = append(all, p.cluster.S3.Process)
	}
	if p.prometheus != nil {
		all = append(all, p.prometheus.Process)
	}
	return all
}

func (p *page) do(w http.ResponseWriter, r *http.Request) {
	n := p.process(r.PostFormValue("name"))
	name := r.PostFormValue("action")
	action := p.actions()[name]
	if n == nil || action == nil {
		http.Error(w, "no such process or action", http.StatusBadRequest)
		return
	}
	p.doing.Go(func() {
		if err := action(n); err != nil {
			p.log.Error("action failed", "action", name, "process", n.Name, "err", err)
		}
	})
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (p *page) tail(w http.ResponseWriter, r *http.Request) {
	n := p.process(r.PathValue("name"))
	if n == nil {
		http.Error(w, "no such process", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = fmt.Fprintf(w, "end of %s\n\n%s", n.LogFile, n.Tail())
}

func (p *page) show(w http.ResponseWriter, r *http.Request) {
	rows := p.look(r.Context())
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := p.html.Execute(w, map[string]any{"Rows": rows, "Now": time.Now().Format(time.TimeOnly)}); err != nil {
		p.log.Error("page not written", "err", err)
	}
}

// look asks all processes at the same time how they are.
func (p *page) look(ctx context.Context) []row {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	nodes := p.cluster.Nodes()
	rows := make([]row, len(nodes))
	var ring map[string]string
	var wg sync.WaitGroup
	wg.Go(func() { ring = p.ring(ctx) })
	for i, n := range nodes {
		rows[i] = p.row(n.Process)
		rows[i].Target, rows[i].Zone = n.Target, n.Zone
		rows[i].HTTP, rows[i].GRPC, rows[i].Gossip, rows[i].URL = n.HTTP, n.GRPC, n.Gossip, n.URL("/")
		wg.Go(func() { rows[i].Ready = readiness(ctx, n) })
	}
	wg.Wait()
	for i := range rows {
		rows[i].Ring = ring[rows[i].Name]
	}
	for _, other := range p.others() {
		o := p.row(other)
		o.Ready = "running"
		if o.PID == 0 {
			o.Ready = "down"
		}
		if p.prometheus != nil && other == p.prometheus.Process {
			o.URL = "http://" + p.prometheus.Address + "/"
		}
		rows = append(rows, o)
	}
	return rows
}

func (p *page) row(n *harness.Process) row {
	r := row{Name: n.Name, PID: n.PID(), Starts: n.Starts(), Frozen: p.isFrozen(n.Name), Actions: []string{"start"}}
	if r.PID != 0 {
		r.Actions = []string{"restart", "stop", "kill -9", "freeze"}
		if r.Frozen {
			r.Actions[3] = "thaw"
		}
	}
	return r
}

func readiness(ctx context.Context, n *harness.Node) string {
	if n.PID() == 0 {
		return "down"
	}
	if n.Ready(ctx) != nil {
		return "not ready"
	}
	return "ready"
}

// ring returns the states of the ingesters, as the first process that answers sees them.
func (p *page) ring(ctx context.Context) map[string]string {
	for _, n := range slices.Concat(p.cluster.Of("distributor"), p.cluster.Of("querier")) {
		if n.PID() == 0 || p.isFrozen(n.Process.Name) {
			continue
		}
		body, err := harness.Get(ctx, n.URL("/ingester/ring"), "Accept", "application/json")
		if err != nil {
			continue
		}
		var answer struct {
			Shards []struct{ ID, State string }
		}
		if json.Unmarshal(body, &answer) != nil {
			continue
		}
		states := map[string]string{}
		for _, s := range answer.Shards {
			states[s.ID] = s.State
		}
		return states
	}
	return nil
}
