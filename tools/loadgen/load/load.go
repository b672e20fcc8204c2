// Package load owns synthetic load with the shape of a Kubernetes cluster: it makes series with
// realistic values, encodes them as remote write requests ahead of time, sends them over a few
// connections at little cost of its own, and reads back what was acknowledged.
package load

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Options say what is sent. The zero value of a field that has a default stands for it.
type Options struct {
	Series  int // of each tenant
	Tenants int // 0: one, whose name is Tenant
	Tenant  string

	Version2         bool // remote write 2.0 instead of 1.0
	RequestSamples   int  // default 2,000
	Interval         time.Duration
	Start            time.Time // time of the first scrape
	Churn            float64   // part of the targets that are replaced at each scrape, with all their series
	Exemplars        float64   // part of the samples of histogram buckets that carry one
	NativeHistograms float64   // part of the series that are native histograms
	Seed             uint64
}

// Validate checks o and puts in the defaults.
func (o *Options) Validate() error {
	if o.RequestSamples == 0 {
		o.RequestSamples = 2000
	}
	if o.Interval == 0 {
		o.Interval = 15 * time.Second
	}
	if o.Tenant == "" {
		o.Tenant = "load"
	}
	if o.Start.IsZero() {
		o.Start = time.Now()
	}
	part := func(f float64) bool { return f >= 0 && f <= 1 }
	switch {
	case o.Series <= 0 || o.Tenants < 0 || o.RequestSamples < 1:
		return errors.New("series and samples of a request must be positive, tenants not negative")
	case o.Interval < time.Millisecond:
		return errors.New("the interval must be a millisecond or more")
	case !part(o.Churn) || !part(o.Exemplars) || !part(o.NativeHistograms):
		return errors.New("churn, exemplars and native histograms are parts, from 0 to 1")
	}
	return nil
}

// Load makes the requests of one scrape after the other.
type Load struct {
	o       Options
	makers  []*maker
	scrapes int // made so far
}

// New returns load that begins at the first scrape.
func New(o Options) (*Load, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	l := &Load{o: o}
	for t := range max(1, o.Tenants) {
		for first := 0; first < o.Series; first += o.RequestSamples {
			n := min(o.RequestSamples, o.Series-first)
			l.makers = append(l.makers, newMaker(&l.o, t, first, n))
		}
	}
	return l, nil
}

// TenantName is the name of tenant i.
func (o *Options) TenantName(i int) string {
	if o.Tenants == 0 {
		return o.Tenant
	}
	return fmt.Sprintf("%s-%05d", o.Tenant, i)
}

// Scrapes is how many were prepared so far.
func (l *Load) Scrapes() int { return l.scrapes }

// DistinctSeries is how many different series the scrapes prepared so far have, over all tenants.
func (l *Load) DistinctSeries() int {
	n := 0
	for _, m := range l.makers {
		n += m.distinct
	}
	return n
}

// Times are those of the first and of the last sample prepared so far.
func (l *Load) Times() (first, last time.Time) {
	end := l.o.Start.Add(time.Duration(max(l.scrapes, 1)) * l.o.Interval)
	return l.o.Start, end.Add(-time.Millisecond)
}

// Batch is the requests of some scrapes, encoded and compressed. It can be sent more than once, to
// different servers.
type Batch struct {
	requests [][]request // of each scrape
	Samples  int
	Bytes    int64         // compressed
	CPU      time.Duration // that preparing took
}

type request struct {
	tenant  string
	body    []byte
	samples int
}

// Prepare makes the next scrapes. Its memory is about 40 bytes for each sample.
func (l *Load) Prepare(ctx context.Context, scrapes int) (*Batch, error) {
	began := CPU()
	b := &Batch{requests: make([][]request, scrapes)}
	for s := range b.requests {
		b.requests[s] = make([]request, len(l.makers))
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			var enc encoder
			for i := int(next.Add(1)) - 1; i < len(l.makers) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				for s := range scrapes {
					b.requests[s][i] = l.makers[i].request(&enc, l.scrapes+s)
				}
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	l.scrapes += scrapes
	for _, turn := range b.requests {
		for _, r := range turn {
			b.Samples += r.samples
			b.Bytes += int64(len(r.body))
		}
	}
	b.CPU = CPU() - began
	return b, nil
}
