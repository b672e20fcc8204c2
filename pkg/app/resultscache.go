package app

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/pkg/block/pagecache"
	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/frontend/results"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/changes"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

const (
	// resultsCachePart is the part of the memory that kept answers may take.
	resultsCachePart = 0.05
	// mostLocalItemBytes and mostSharedItemBytes bound one kept answer, in this process and in
	// memcached, which takes no items over a megabyte.
	mostLocalItemBytes  = 4 << 20
	mostSharedItemBytes = 1<<20 - 1024
)

// ResultsCacheConfig says where query-frontends keep answers, mounted as frontend.results_cache.
type ResultsCacheConfig struct {
	pagecache.Config
	MaxBytes int
}

// Declare names the settings.
func (c *ResultsCacheConfig) Declare(s *config.Set) {
	s.String(&c.Backend, "backend", "", "Cache that all query-frontends share: memcached. Empty: each has its own in memory.").OneOf("", "inmemory", pagecache.Memcached).Expert()
	c.DeclareServers(s)
	s.Int(&c.MaxBytes, "max-size-bytes", 0, "Memory for the results cache, if it is in memory. 0: a twentieth of what the process may use.").Expert()
}

// resultsCache is the one of this process, nil if answers are not kept.
func (a *App) resultsCache() (*results.Cache, error) {
	if !a.cfg.Reads.Frontend.CacheResults {
		return nil, nil //nolint:nilnil // No cache is a working cache.
	}
	shared, err := pagecache.Open(a.cfg.Reads.Results.Config, "results-cache", mostSharedItemBytes, a.kitLog("results-cache"), a.reg)
	if err != nil {
		return nil, err
	}
	if shared != nil {
		a.closers = append(a.closers, shared.Close)
		return results.New(shared, mostSharedItemBytes, a.reg), nil
	}
	most := int64(a.cfg.Reads.Results.MaxBytes)
	if most <= 0 {
		most = a.memory.Part(resultsCachePart)
	}
	m := results.NewMemory(most, a.memory.Account(memory.Caches), a.reg)
	a.memory.OnPressure(m.Shrink)
	return results.New(m, mostLocalItemBytes, a.reg), nil
}

// changesBy asks a querier what changed.
func changesBy(run work.Runner) func(context.Context) (changes.Log, error) {
	return func(ctx context.Context) (changes.Log, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, changes.Path, http.NoBody)
		if err != nil {
			return changes.Log{}, errs.Wrap(errs.Internal, err)
		}
		w := &collected{header: http.Header{}}
		if err := run.Run(ctx, &work.Work{Class: work.ClassOf(ctx), Request: r, Writer: w}); err != nil {
			return changes.Log{}, err
		}
		return changes.Decode(w.body.Bytes())
	}
}

// clockSkew is how far apart the clocks of the processes may be: a single one has one clock.
func (a *App) clockSkew() time.Duration {
	if a.cfg.alone() {
		return time.Millisecond
	}
	return results.Skew
}

// collected is an answer in memory.
type collected struct {
	header http.Header
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (c *collected) Header() http.Header { return c.header }

// Write implements http.ResponseWriter.
func (c *collected) Write(b []byte) (int, error) { return c.body.Write(b) }

// WriteHeader implements http.ResponseWriter.
func (*collected) WriteHeader(int) {}

// noStore says whether a request asks for an answer that is new, and is not to be kept: as one is that
// shows all that was acknowledged before it was asked for, and one that is made of a part of what there is.
func noStore(h http.Header) bool {
	if work.ReadingIn(h) != (work.Reading{}) {
		return true
	}
	for _, v := range h.Values("Cache-Control") {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(part), "no-store") {
				return true
			}
		}
	}
	return false
}

// seriesTurns gives the requests to delete series the shape that queriers ask for.
func (s seriesDeletions) turns(ctx context.Context, id tenant.ID) ([]changes.Change, error) {
	list, err := s.Turns(ctx, id)
	out := make([]changes.Change, len(list))
	for i, t := range list {
		out[i] = changes.Change{MinTime: t.Start, MaxTime: t.End, At: t.At}
	}
	return out, err
}
