package querier

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
	"github.com/amphora-metrics/amphora/pkg/wire/storepb"
)

const madness = "no such answer"

// madIngester and madStore give answers that nobody can read.
type (
	madIngester struct{ ingesterpb.IngesterQueryClient }
	madStore    struct{ storepb.StoreGatewayClient }
)

func (madIngester) Query(context.Context, *ingesterpb.QueryRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[ingesterpb.QueryResponse], error) {
	panic(madness)
}

func (madIngester) LabelNames(context.Context, *ingesterpb.LabelNamesRequest, ...grpc.CallOption) (*ingesterpb.LabelNamesResponse, error) {
	panic(madness)
}

func (madStore) Series(context.Context, *storepb.SeriesRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[storepb.SeriesResponse], error) {
	panic(madness)
}

func (madIngester) LabelValues(context.Context, *ingesterpb.LabelValuesRequest, ...grpc.CallOption) (*ingesterpb.LabelValuesResponse, error) {
	panic(madness)
}

func (madStore) LabelNames(context.Context, *storepb.LabelNamesRequest, ...grpc.CallOption) (*storepb.LabelNamesResponse, error) {
	panic(madness)
}

func (madStore) LabelValues(context.Context, *storepb.LabelValuesRequest, ...grpc.CallOption) (*storepb.LabelValuesResponse, error) {
	panic(madness)
}

func (madStore) Stats(context.Context, *storepb.StatsRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[storepb.StatsResponse], error) {
	panic(madness)
}

// A panic of any goroutine that fetches for a read is one of who reads, below whom it is recovered and counted. In
// another goroutine it would end the process.
func TestAPanicOfAFetchIsThatOfWhoReads(t *testing.T) {
	old := newNode(t, "a")
	add(t, old, reference(5, 50))
	all := labels.MustNewMatcher(labels.MatchNotEqual, "__name__", "")
	ingesters, stores := newCluster(t, []*node{newNode(t, "a"), newNode(t, "b"), newNode(t, "c")}, nil), withBlocks(t, old).old(t)
	ingesters.q.deps.Client = func(string) (ingesterpb.IngesterQueryClient, error) { return madIngester{}, nil }
	stores.q.deps.Stores.Client = func(string) (storepb.StoreGatewayClient, error) { return madStore{}, nil }
	for name, c := range map[string]*cluster{"ingesters": ingesters, "store-gateways": stores} {
		s, err := c.q.Querier(0, 1<<40)
		if err != nil {
			t.Fatal(err)
		}
		panics := func(what string, read func()) {
			defer func() {
				p := fmt.Sprint(recover())
				if !strings.Contains(p, madness) || !strings.Contains(p, "panic_test.go") {
					t.Errorf("%s: %s panicked with %.200s", name, what, p)
				}
			}()
			read()
			t.Errorf("%s: %s goes on", name, what)
		}
		panics("a selection", func() { s.Select(asTenant(t), true, nil, all).Next() })
		panics("the error of one", func() { _ = s.Select(asTenant(t), true, nil, all).Err() })
		panics("a list of names", func() { _, _, _ = s.LabelNames(asTenant(t), nil, all) })
		panics("a list of values", func() { _, _, _ = s.LabelValues(asTenant(t), "i", nil, all) })
		if c == stores {
			panics("a count", func() { _, _ = c.q.History(asTenant(t), 1) })
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// madLog panics for every line.
type madLog struct{ slog.Handler }

func (madLog) Enabled(context.Context, slog.Level) bool  { return true }
func (madLog) Handle(context.Context, slog.Record) error { panic(madness) }

// A panic while a read waits for a store-gateway that is silent, beside the call, ends the read in the same way.
func TestAPanicBesideTheCallEndsTheRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoors(t, "ab")
		d.q.deps.Logger = slog.New(madLog{})
		d.doors["a"].behave(nil, never)
		if _, _, _, err := d.values(t.Context()); !errs.Panicked(err) || !strings.Contains(err.Error(), madness) {
			t.Errorf("the read ends with %v", err)
		}
		d.calls(t)
	})
}
