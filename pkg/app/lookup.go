package app

import (
	"context"
	"net"
	"slices"
	"sync/atomic"
	"time"

	prometheus "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"

	"github.com/amphora-metrics/amphora/pkg/frontend"
)

// lookup is a DNS name and what it resolves to.
type lookup struct {
	host, port string
	found      atomic.Pointer[[]string]
}

// addresses returns what was found last.
func (l *lookup) addresses() []string {
	if p := l.found.Load(); p != nil {
		return *p
	}
	return nil
}

func (l *lookup) resolve(ctx context.Context) error {
	hosts, err := net.DefaultResolver.LookupHost(ctx, l.host)
	if err != nil {
		return err
	}
	out := make([]string, len(hosts))
	for i, h := range hosts {
		out[i] = net.JoinHostPort(h, l.port)
	}
	slices.Sort(out)
	l.found.Store(&out)
	return nil
}

// fronted is the language with queries that the frontend answers.
type fronted struct {
	promql
	f *frontend.Frontend
}

// NewInstantQuery is part of prom.Engine.
func (e fronted) NewInstantQuery(ctx context.Context, q storage.Queryable, opts prometheus.QueryOpts, qs string, ts time.Time) (prometheus.Query, error) {
	return e.f.NewInstantQuery(ctx, q, opts, qs, ts)
}

// NewRangeQuery is part of prom.Engine.
func (e fronted) NewRangeQuery(ctx context.Context, q storage.Queryable, opts prometheus.QueryOpts, qs string, start, end time.Time, step time.Duration) (prometheus.Query, error) {
	return e.f.NewRangeQuery(ctx, q, opts, qs, start, end, step)
}
