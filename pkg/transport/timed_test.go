package transport

import (
	"context"
	"maps"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/errs"
	pb "github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

// TestEachStreamIsTimedOnceHoweverItEnds: read to its end, with an error, or left by who asked.
func TestEachStreamIsTimedOnceHoweverItEnds(t *testing.T) {
	noLeaks(t)
	answer := make(chan func(grpc.ServerStreamingServer[pb.QueryResponse]) error, 1)
	s, _ := startServer(t, Config{}, func(s *Server) {
		pb.RegisterIngesterQueryServer(s.GRPC(), &queries{stream: func(s grpc.ServerStreamingServer[pb.QueryResponse]) error { return (<-answer)(s) }})
	})
	reg := prometheus.NewRegistry()
	clients, err := NewClients(ClientConfig{}, ClientDeps{Registerer: reg, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	startService(t, clients)
	c, err := clients.For(s.GRPCAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	timed := func() map[string]uint64 {
		out := map[string]uint64{}
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() != "amphora_ingester_client_request_duration_seconds" {
					continue
				}
				for _, l := range m.GetLabel() {
					if l.GetName() == "status_code" {
						out[l.GetValue()] += m.GetHistogram().GetSampleCount()
					}
				}
			}
		}
		return out
	}
	read := func(ctx context.Context) error {
		stream, err := c.Query(ctx, &pb.QueryRequest{})
		for err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	want := map[string]uint64{}
	for _, test := range []struct {
		outcome string
		answers func(grpc.ServerStreamingServer[pb.QueryResponse]) error
	}{
		{"2xx", func(s grpc.ServerStreamingServer[pb.QueryResponse]) error { return s.Send(&pb.QueryResponse{}) }},
		{"2xx", func(grpc.ServerStreamingServer[pb.QueryResponse]) error { return nil }},
		{"error", func(grpc.ServerStreamingServer[pb.QueryResponse]) error {
			return errs.New(errs.Unavailable, "not now")
		}},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		answer <- test.answers
		_ = read(ctx) // how it ends is the subject of others
		want[test.outcome]++
		if got := timed(); !maps.Equal(got, want) {
			t.Errorf("after %s: %v, want %v", test.outcome, got, want)
		}
		cancel() // which must not count it again
	}
	ctx, cancel := context.WithCancel(t.Context())
	answer <- func(s grpc.ServerStreamingServer[pb.QueryResponse]) error {
		<-s.Context().Done()
		return nil
	}
	if _, err := c.Query(ctx, &pb.QueryRequest{}); err != nil {
		t.Fatal(err)
	}
	cancel() // without a look at the answer
	want["cancel"]++
	eventually(t, "a call that was left is timed", func() bool { return maps.Equal(timed(), want) })
}
