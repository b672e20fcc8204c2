package scraper

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	httpconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/scrape"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const (
	// settle is how long changes of targets are gathered before they take effect.
	settle = 2 * time.Second
	// pushTimeout bounds how long a scrape waits until its samples are stored.
	pushTimeout = 20 * time.Second
	// longestGoodbye is the longest interval whose series are marked stale: after a longer one queries do not
	// see them any more before the marker would come.
	longestGoodbye = 2 * time.Minute
	// discoveredPerTarget is how many targets may be discovered for each that may be scraped.
	discoveredPerTarget = 10
)

// run is one scraper at work.
type run struct {
	s        *Scraper
	id       string
	tenant   tenant.ID
	revision string
	metrics  runMetrics
	external atomic.Pointer[labels.Labels]
	asked    atomic.Pointer[wished]

	ctx     context.Context // of discovery
	cancel  context.CancelFunc
	found   *discovery.Manager
	scraped *scrape.Manager
	sets    chan map[string][]*targetgroup.Group
	ended   chan struct{} // closed when the collector has stopped
	wg      sync.WaitGroup
	jobs    []string
	slowest time.Duration
}

// start makes a scraper that works by d. Errors: Invalid for a configuration that cannot be.
func (s *Scraper) start(d Definition) (*run, error) {
	p, err := parse(&s.cfg, d.Config)
	if err != nil {
		return nil, err
	}
	id, err := tenant.Parse(d.Workspace)
	if err != nil {
		return nil, err
	}
	r := &run{s: s, id: d.ID, tenant: id, metrics: s.metrics.of(d.ID), sets: make(chan map[string][]*targetgroup.Group), ended: make(chan struct{})}
	r.ask(d)
	log := s.log.With("scraper", d.ID, "workspace", d.Workspace)
	// The libraries count by job and target, which would be too much of several tenants.
	reg := prometheus.NewRegistry()
	sd, err := discovery.CreateAndRegisterSDMetrics(reg)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err)
	}
	wall, answers := newFirewall(&s.cfg), newFirewall(&s.cfg)
	answers.maxBytes = int64(s.cfg.MaxBodyBytes)
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.found = discovery.NewManager(r.ctx, newPartLog(log, discoveryLog, &r.asked), reg, sd, discovery.Updatert(settle),
		discovery.HTTPClientOptions(httpconfig.WithDialContextFunc(answers.dial), httpconfig.WithKeepAlivesDisabled()))
	r.scraped, err = scrape.NewManager(&scrape.Options{
		DiscoveryReloadInterval: model.Duration(settle), DiscoveryReloadOnStartup: true,
		HTTPClientOptions: []httpconfig.HTTPClientOption{httpconfig.WithDialContextFunc(wall.dial), httpconfig.WithUserAgent("Amphora")},
	}, newPartLog(log, collectorLog, &r.asked), nil, nil, sink{r}, reg)
	if err != nil || r.found == nil {
		r.cancel()
		return nil, errs.New(errs.Internal, "make a scraper: %w", err)
	}
	if err := r.apply(d.Revision, p); err != nil {
		r.cancel()
		return nil, err
	}
	r.wg.Go(func() { _ = r.found.Run() }) // it ends with ctx, and says so
	r.wg.Go(r.pass)
	go func() {
		defer close(r.ended)
		_ = r.scraped.Run(r.sets) // it never fails
	}()
	return r, nil
}

// ask remembers what the owner wants to be logged.
func (r *run) ask(d Definition) { r.asked.Store(&wished{d.Logs, d.LogGroup}) }

// change makes the scraper work by d. Errors: Invalid; it goes on as it was.
func (r *run) change(d Definition) error {
	r.ask(d)
	if d.Revision == r.revision {
		return nil
	}
	p, err := parse(&r.s.cfg, d.Config)
	if err != nil {
		return err
	}
	return r.apply(d.Revision, p)
}

func (r *run) apply(revision string, p *plan) error {
	if err := r.scraped.ApplyConfig(p.config); err != nil {
		return errs.Wrap(errs.Invalid, err)
	}
	by := map[string]discovery.Configs{}
	r.jobs = nil
	for _, job := range p.jobs {
		by[job.JobName] = job.ServiceDiscoveryConfigs
		r.jobs = append(r.jobs, job.JobName)
	}
	if err := r.found.ApplyConfig(by); err != nil {
		return errs.Wrap(errs.Invalid, err)
	}
	r.external.Store(&p.external)
	r.slowest, r.revision = p.slowest, revision
	return nil
}

// pass hands targets from discovery to the collector, as many as may be.
func (r *run) pass() {
	for {
		select {
		case <-r.ctx.Done():
			return
		case sets, ok := <-r.found.SyncCh():
			if !ok {
				return
			}
			kept, cut := limit(sets, r.s.cfg.MaxTargets*discoveredPerTarget)
			r.metrics.targets.Set(float64(kept))
			r.metrics.cut.Set(float64(cut))
			if cut > 0 {
				r.s.log.Warn("a scraper has too many targets, some are left out", "scraper", r.id, "left_out", cut)
			}
			select {
			case r.sets <- sets:
			case <-r.ctx.Done():
				return
			}
		}
	}
}

// limit cuts sets to most targets, always the same ones.
func limit(sets map[string][]*targetgroup.Group, most int) (kept, cut int) {
	for _, job := range slices.Sorted(maps.Keys(sets)) {
		for i, g := range sets[job] {
			n := len(g.Targets)
			if room := most - kept; n > room {
				sets[job][i] = &targetgroup.Group{Targets: g.Targets[:room], Labels: g.Labels, Source: g.Source}
				cut += n - room
				n = room
			}
			kept += n
		}
	}
	return kept, cut
}

// stop ends the scraper where others go on with it: its series are not marked.
func (r *run) stop() {
	r.cancel()
	r.wg.Wait()
	r.scraped.Stop()
	<-r.ended
}

// bury ends a scraper that nobody goes on with. Its series are marked stale, unless until is closed before.
func (r *run) bury(until <-chan struct{}) {
	r.cancel()
	r.wg.Wait()
	if r.slowest <= longestGoodbye {
		none := map[string][]*targetgroup.Group{}
		for _, job := range r.jobs {
			none[job] = nil
		}
		// A target that is gone is marked two intervals and a tenth later, if it does not come back.
		wait := time.NewTimer(2*settle + r.slowest*23/10 + time.Second)
		defer wait.Stop()
		select {
		case r.sets <- none:
			select {
			case <-wait.C:
			case <-until:
			}
		case <-until:
		}
	}
	r.scraped.Stop()
	<-r.ended
}
