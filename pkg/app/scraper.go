package app

import (
	"context"
	"time"

	"github.com/grafana/dskit/ring"
	"k8s.io/klog/v2"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/control"
	"github.com/amphora-metrics/amphora/pkg/members"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/scraper"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// ScraperConfig is the settings of scrapers and of their place among their peers.
type ScraperConfig struct {
	Scraper scraper.Config
	Ring    ScraperRingConfig
}

// Declare names the settings.
func (c *ScraperConfig) Declare(s *config.Set) {
	s.Mount("scraper", &c.Scraper)
	s.Mount("scraper.ring", &c.Ring)
}

// ScraperRingConfig of the scrapers' ring, mounted as scraper.ring.
type ScraperRingConfig struct{ Heartbeats members.Heartbeats }

// Declare names the settings. While nobody runs a scraper its targets are not scraped, so that the others
// take over soon.
func (c *ScraperRingConfig) Declare(s *config.Set) {
	s.Duration(&c.Heartbeats.Period, "heartbeat_period", 2*time.Second, "How often a process that runs scrapers sends a heartbeat.").Expert()
	s.Duration(&c.Heartbeats.Timeout, "heartbeat_timeout", 10*time.Second, "Silence after which such a process counts as dead and others take over its scrapers.").Expert()
	s.Int(&c.Heartbeats.ForgetPeriods, "auto_forget_unhealthy_periods", 10, "Heartbeat timeouts after which a silent process is removed from the ring. 0: never.").Expert()
}

// Validate refuses what cannot work.
func (c *ScraperRingConfig) Validate() error { return c.Heartbeats.Validate() }

// scraperParts are the parts of a process that runs scrapers.
type scraperParts struct {
	ring    part[*ring.Ring]
	scraper part[*scraper.Scraper]
}

// pollAlone is how often a process looks for scrapers that nobody but itself can make.
const pollAlone = 5 * time.Minute

// scrapers are those of this process.
func (a *App) scrapers() (*scraper.Scraper, error) {
	return a.p.scrapers.scraper.get(func() (*scraper.Scraper, error) {
		docs, err := a.documents()
		if err != nil {
			return nil, err
		}
		d, err := a.distributor()
		if err != nil {
			return nil, err
		}
		self, err := a.cfg.Ring.ID()
		if err != nil {
			return nil, err
		}
		cfg := a.cfg.Scrapers.Scraper
		alive := func() ([]string, error) { return []string{self}, nil }
		if a.cfg.alone() {
			cfg.PollInterval = max(cfg.PollInterval, pollAlone)
		} else if alive, err = a.aliveScrapers(); err != nil {
			return nil, err
		}
		klog.SetSlogLogger(a.log.With("component", "kubernetes")) // the library has one log for all its clients
		all := control.NewScrapers(docs, control.NewDirectory(docs))
		return scraper.New(cfg, scraper.Deps{
			Logger: a.log, Reg: a.reg, Self: self, Alive: alive, Report: all.Report,
			List: func(ctx context.Context) ([]scraper.Definition, error) {
				list, err := all.List(ctx)
				out := make([]scraper.Definition, len(list))
				for i, x := range list {
					out[i] = scraper.Definition(x)
				}
				return out, err
			},
			Push: func(ctx context.Context, id tenant.ID, req *remotewrite.Request) error {
				_, err := d.PushFrom(ctx, id, frame.API, req)
				return err
			},
		})
	})
}

// aliveScrapers lists the processes that run scrapers.
func (a *App) aliveScrapers() (func() ([]string, error), error) {
	r, err := a.p.scrapers.ring.get(func() (*ring.Ring, error) {
		return a.workersRing(scraper.RingName, scraper.RingKey, ring.Config{HeartbeatTimeout: a.cfg.Scrapers.Ring.Heartbeats.Timeout, ReplicationFactor: 1})
	})
	if err != nil {
		return nil, err
	}
	return func() ([]string, error) {
		ms, err := alive(r)
		out := make([]string, len(ms))
		for i, m := range ms {
			out[i] = m.ID
		}
		return out, err
	}, nil
}

// buildScraper builds the scrapers with their place among their peers. They leave it before they stop, so
// that the others go on at once.
func (a *App) buildScraper() error {
	s, err := a.scrapers()
	if err != nil {
		return err
	}
	if err := a.serve("scraper", s); err != nil {
		return err
	}
	if a.cfg.alone() {
		return nil
	}
	return a.workersEntry(scraper.RingName, scraper.RingKey, worker{beats: a.cfg.Scrapers.Ring.Heartbeats, tokens: 1, leave: true})
}

// scrapersChanged tells the scrapers of this process; nil if it has none.
func (a *App) scrapersChanged() (func(), error) {
	if !a.cfg.runs("scraper") {
		return nil, nil
	}
	s, err := a.scrapers()
	if err != nil {
		return nil, err
	}
	return s.Wake, nil
}

func (a *App) checkScrape(data []byte) error { return scraper.Check(&a.cfg.Scrapers.Scraper, data) }
