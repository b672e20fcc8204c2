// Package scraper owns managed scrapers: discovery and scraping as in Prometheus, by a tenant's
// configuration, with no access to the disk or environment of the process and only to networks that
// the operator allows. Processes share the scrapers: each runs in one process, and moves to another
// within seconds when that one is gone.
package scraper

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// The name and the key of the ring in which the processes find each other.
const (
	RingName = "scraper"
	RingKey  = "scraper"
)

// Definition is a scraper that is to run.
type Definition struct {
	ID        string
	Workspace string
	Revision  string // changes with the configuration and the workspace
	Config    []byte
	Applied   bool     // the revision is known to run
	Logs      []string // parts whose log the owner asks for
	LogGroup  string   // said in that log
}

// Deps are what scrapers work with.
type Deps struct {
	Logger *slog.Logger
	Reg    prometheus.Registerer
	// Self is the ID of this process, Alive those of all that run scrapers.
	Self  string
	Alive func() ([]string, error)
	// List returns the scrapers that are to run, of all accounts.
	List func(context.Context) ([]Definition, error)
	// Report says what became of a revision: it runs, or it cannot for the reason problem.
	Report func(ctx context.Context, id, revision, problem string) error
	// Push stores what was scraped.
	Push func(context.Context, tenant.ID, *remotewrite.Request) error
}

// Scraper runs the scrapers that are this process's.
type Scraper struct {
	services.Service
	cfg     Config
	deps    Deps
	log     *slog.Logger
	metrics *metrics
	places  *semaphore.Weighted // of those that hold samples of a scrape
	wake    chan struct{}

	known   []Definition // as listed last
	runs    map[string]*run
	goodbye sync.WaitGroup // those that are being ended
	closing chan struct{}
}

// New returns the scrapers of a process. Errors: Invalid for settings that cannot work.
func New(cfg Config, deps Deps) (*Scraper, error) {
	if deps.Logger == nil || deps.Alive == nil || deps.List == nil || deps.Report == nil || deps.Push == nil {
		return nil, errors.New("scraper: a dependency is missing")
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Scraper{cfg: cfg, deps: deps, log: deps.Logger.With("component", "scraper"), metrics: newMetrics(deps.Reg),
		places: semaphore.NewWeighted(int64(max(16, 4*runtime.GOMAXPROCS(0)))), wake: make(chan struct{}, 1),
		runs: map[string]*run{}, closing: make(chan struct{})}
	s.Service = services.NewBasicService(nil, s.run, s.end).WithName("scraper")
	return s, nil
}

// Wake says that a scraper was made, changed or deleted.
func (s *Scraper) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

const (
	// lookEvery is how soon a process sees that another one came or went.
	lookEvery = 500 * time.Millisecond
	// againAfter is when what failed is tried again.
	againAfter = 5 * time.Second
)

func (s *Scraper) run(ctx context.Context) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var members []string
	var due time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
			due = time.Time{}
		case <-look.C:
		}
		now, err := s.deps.Alive()
		if err != nil {
			s.metrics.ringError.Inc()
			s.log.Warn("the other processes are not known, scrapers stay where they are", "err", err)
			continue
		}
		listing := !time.Now().Before(due)
		if !listing && slices.Equal(now, members) {
			continue
		}
		members = now
		if listing {
			due = time.Now().Add(s.cfg.PollInterval)
		}
		if err := s.look(ctx, members, listing); err != nil && ctx.Err() == nil {
			s.metrics.unlisted.Inc()
			s.log.Warn("scrapers could not be looked at, those that run go on, will retry", "err", err)
			due = time.Now().Add(min(againAfter, s.cfg.PollInterval))
		}
	}
}

// look brings what runs here up to date.
func (s *Scraper) look(ctx context.Context, members []string, listing bool) error {
	var problems []error
	if listing {
		s.metrics.listings.Inc()
		known, err := s.deps.List(ctx)
		if err == nil {
			s.known = known
		} else { // those known may have become this process's all the same
			problems = append(problems, err)
		}
	}
	exists, mine := map[string]bool{}, map[string]bool{}
	for i := range s.known {
		d := &s.known[i]
		exists[d.ID] = true
		if owner(members, d.ID) != s.deps.Self {
			continue
		}
		mine[d.ID] = true
		if err := s.keep(ctx, d); err != nil {
			problems = append(problems, err)
		}
	}
	for id, r := range s.runs {
		if mine[id] {
			continue
		}
		delete(s.runs, id)
		s.metrics.forget(id)
		s.goodbye.Go(func() {
			if exists[id] {
				r.stop()
			} else {
				r.bury(s.closing)
			}
		})
	}
	s.metrics.running.Set(float64(len(s.runs)))
	return errors.Join(problems...)
}

// keep makes a scraper run as d says, and tells what became of it.
func (s *Scraper) keep(ctx context.Context, d *Definition) error {
	r, problem := s.runs[d.ID], ""
	var err error
	if r == nil || string(r.tenant) != d.Workspace {
		if r != nil { // its samples go elsewhere from now on
			delete(s.runs, d.ID)
			s.goodbye.Go(func() { r.bury(s.closing) })
		}
		if r, err = s.start(*d); err == nil {
			s.runs[d.ID] = r
		}
	} else {
		err = r.change(*d)
	}
	if err != nil {
		if errs.KindOf(err) == errs.Internal {
			return err
		}
		problem = err.Error()
	}
	if d.Applied && problem == "" {
		return nil
	}
	if err := s.deps.Report(ctx, d.ID, d.Revision, problem); err != nil {
		return err
	}
	d.Applied = problem == ""
	return nil
}

// end stops all scrapers. Others go on with them.
func (s *Scraper) end(error) error {
	close(s.closing)
	var wg sync.WaitGroup
	for _, r := range s.runs {
		wg.Go(r.stop)
	}
	wg.Wait()
	s.goodbye.Wait()
	return nil
}

// owner returns which of members runs a scraper. All who see the same members agree, and when one comes or
// goes no scraper moves between the others.
func owner(members []string, id string) string {
	best, most := "", uint64(0)
	for _, m := range members {
		if h := xxhash.Sum64String(m + "\x00" + id); best == "" || h > most || h == most && m < best {
			best, most = m, h
		}
	}
	return best
}
