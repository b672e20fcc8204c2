package frontend

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
)

// RingName and RingKey are how frontends find each other.
const (
	RingName = "query-frontend"
	RingKey  = "query-frontend"
)

// peerWait bounds the wait for another frontend: one that hangs must not keep what the others know.
const peerWait = 3 * time.Second

// Peers are the frontends of the cluster as one of them sees them. The zero value is a frontend without
// others.
type Peers struct {
	Self string // the name of this one
	// Others returns those that are alive beside this one. nil: there can be none. Errors: why they are
	// not known.
	Others func() ([]Peer, error)
	Client func(addr string) (querypb.FrontendClient, error)
}

// Peer is another frontend.
type Peer struct{ ID, Addr string }

// Running lists the queries under way in all frontends, the oldest first. Those that do not answer are
// left out, with a warning for each. The tenants of the list are those of ctx.
func (f *Frontend) Running(ctx context.Context, of Whose) (list []Running, warnings []error) {
	list = f.running.list(of)
	for i := range list {
		list[i].Frontend = f.deps.Peers.Self
	}
	var mu sync.Mutex // guards list
	problems := f.everywhere(ctx, func(ctx context.Context, p Peer, c querypb.FrontendClient) error {
		answer, err := c.Running(ctx, &querypb.RunningRequest{All: of.All})
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, q := range answer.Queries {
			one := fromWire(q)
			one.Frontend = p.ID
			list = append(list, one)
		}
		return nil
	})
	for _, err := range problems {
		warnings = append(warnings, fmt.Errorf("queries may be missing: %w", err))
	}
	slices.SortFunc(list, func(a, b Running) int { return older(&a, &b) })
	return list, warnings
}

// Stop ends the query with an id, whichever frontend has it. The tenants are those of ctx. Errors:
// NotFound, Unavailable if one that may have it did not answer.
func (f *Frontend) Stop(ctx context.Context, of Whose, id string) error {
	if f.running.stop(of, id) {
		f.metrics.stopped.Inc()
		return nil
	}
	ctx, done := context.WithCancelCause(ctx)
	defer done(nil)
	silent := f.everywhere(ctx, func(ctx context.Context, p Peer, c querypb.FrontendClient) error {
		answer, err := c.Stop(ctx, &querypb.StopRequest{Id: id, All: of.All})
		if err != nil {
			return err
		}
		if answer.Stopped {
			done(errFound)
		}
		return nil
	})
	switch {
	case context.Cause(ctx) == errFound: //nolint:errorlint // It is that very one.
		return nil
	case len(silent) > 0:
		return errs.New(errs.Unavailable, "no query %q is under way in the query-frontends that answered, but %w", id, silent[0])
	}
	return errs.New(errs.NotFound, "no query %q is under way", id)
}

// errFound ends the search for a query.
var errFound = errs.New(errs.Canceled, "the query was found")

// everywhere calls another frontend, all at the same time, and returns what went wrong.
func (f *Frontend) everywhere(ctx context.Context, call func(context.Context, Peer, querypb.FrontendClient) error) []error {
	if f.deps.Peers.Others == nil {
		return nil
	}
	others, err := f.deps.Peers.Others()
	if err != nil {
		return []error{fmt.Errorf("query-frontend %s asked no others: %w", f.deps.Peers.Self, err)}
	}
	ctx, cancel := context.WithTimeout(ctx, peerWait)
	defer cancel()
	problems := make([]error, len(others))
	var wg sync.WaitGroup
	for i, p := range others {
		wg.Go(func() {
			c, err := f.deps.Peers.Client(p.Addr)
			if err == nil {
				err = call(ctx, p, c)
			}
			if err != nil {
				problems[i] = fmt.Errorf("query-frontend %s did not answer: %w", p.ID, err)
			}
		})
	}
	wg.Wait()
	return slices.DeleteFunc(problems, func(err error) bool { return err == nil })
}

// Server answers other frontends. It implements querypb.FrontendServer.
type Server struct {
	querypb.UnimplementedFrontendServer
	f *Frontend
}

// NewServer returns the gRPC service of f.
func NewServer(f *Frontend) *Server { return &Server{f: f} }

// Running implements querypb.FrontendServer.
func (s *Server) Running(ctx context.Context, in *querypb.RunningRequest) (*querypb.RunningResponse, error) {
	of, err := WhoseOf(ctx, in.All)
	if err != nil {
		return nil, err
	}
	out := &querypb.RunningResponse{}
	for _, q := range s.f.running.list(of) {
		one := &querypb.RunningQuery{Id: q.ID, Class: q.Class, Query: q.Query, SinceNs: q.Since.UnixNano(),
			PartsDone: int64(q.Parts), Samples: q.Samples, FetchedBytes: q.Fetched}
		for _, id := range q.Tenants {
			one.Tenants = append(one.Tenants, string(id))
		}
		out.Queries = append(out.Queries, one)
	}
	return out, nil
}

// fromWire is the inverse of what Running sends.
func fromWire(q *querypb.RunningQuery) Running {
	out := Running{ID: q.Id, Class: q.Class, Query: q.Query, Since: time.Unix(0, q.SinceNs).UTC(), Parts: int(q.PartsDone), Samples: q.Samples, Fetched: q.FetchedBytes}
	for _, id := range q.Tenants {
		out.Tenants = append(out.Tenants, tenant.ID(id))
	}
	return out
}

// Stop implements querypb.FrontendServer.
func (s *Server) Stop(ctx context.Context, in *querypb.StopRequest) (*querypb.StopResponse, error) {
	of, err := WhoseOf(ctx, in.All)
	if err != nil {
		return nil, err
	}
	stopped := s.f.running.stop(of, in.Id)
	if stopped {
		s.f.metrics.stopped.Inc()
	}
	return &querypb.StopResponse{Stopped: stopped}, nil
}
