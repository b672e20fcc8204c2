package scheduler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/grafana/dskit/user"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
)

// vtCodec encodes as package transport does.
type vtCodec struct{}

func (vtCodec) Name() string { return "proto" }

func (vtCodec) Marshal(v any) ([]byte, error) {
	m, ok := v.(interface {
		SizeVT() int
		MarshalToSizedBufferVT([]byte) (int, error)
	})
	if !ok {
		return nil, fmt.Errorf("a %T", v)
	}
	b := make([]byte, m.SizeVT())
	_, err := m.MarshalToSizedBufferVT(b)
	return b, err
}

func (vtCodec) Unmarshal(b []byte, v any) error {
	m, ok := v.(interface {
		Reset()
		UnmarshalVT([]byte) error
	})
	if !ok {
		return fmt.Errorf("a %T", v)
	}
	m.Reset()
	return m.UnmarshalVT(b)
}

// tenantOf is a stream of a tenant.
type tenantOf struct{ grpc.ServerStream }

func (s tenantOf) Context() context.Context {
	return user.InjectOrgID(s.ServerStream.Context(), "t")
}

// served returns a client of s over a connection.
func served(t *testing.T, s *Scheduler) querypb.SchedulerClient {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	srv := grpc.NewServer(grpc.ForceServerCodec(vtCodec{}), grpc.StreamInterceptor(func(to any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		return handler(to, tenantOf{stream})
	}))
	querypb.RegisterSchedulerServer(srv, NewServer(s))
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///scheduler", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(vtCodec{})),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		srv.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return querypb.NewSchedulerClient(conn)
}

// TestAnswersArriveWholeFromQueriersOfAnyVersion: a querier may say with the last part, or after it, that it was the
// last one.
func TestAnswersArriveWholeFromQueriersOfAnyVersion(t *testing.T) {
	c := served(t, started(t, Config{}, limits.View{}))
	part := func(samples int64) *querypb.FromWorker {
		return &querypb.FromWorker{Part: &querypb.Part{Samples: samples}}
	}
	last := func(samples int64) *querypb.FromWorker {
		return &querypb.FromWorker{Part: &querypb.Part{Samples: samples}, Done: true}
	}
	refused := &querypb.Failure{Kind: uint32(errs.Invalid), Text: "no"}
	worker, err := c.Pull(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := worker.Send(&querypb.FromWorker{Querier: "q"}); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		says  []*querypb.FromWorker
		parts int
		fails bool
	}{
		"with the last":         {says: []*querypb.FromWorker{part(1), part(2), last(3)}, parts: 3},
		"with the only one":     {says: []*querypb.FromWorker{last(1)}, parts: 1},
		"after the last":        {says: []*querypb.FromWorker{part(1), part(2), {Done: true}}, parts: 2},
		"without a part":        {says: []*querypb.FromWorker{{Done: true}}},
		"with an error":         {says: []*querypb.FromWorker{part(1), {Done: true, Error: refused}}, parts: 1, fails: true},
		"with a part and error": {says: []*querypb.FromWorker{{Part: &querypb.Part{Samples: 1}, Done: true, Error: refused}}, parts: 1, fails: true},
	} {
		for range 3 { // the memory of messages is used again
			asked, err := c.Run(t.Context(), &querypb.Work{Query: &querypb.Query{Text: name}})
			if err != nil {
				t.Fatal(err)
			}
			a, err := worker.Recv()
			if err != nil || a.Work.Query.Text != name || a.Tenants != "t" {
				t.Fatalf("%s: assigned %v, %v", name, a, err)
			}
			for _, m := range test.says {
				if err := worker.Send(m); err != nil {
					t.Fatal(err)
				}
			}
			n := 0
			var p *querypb.Part
			for p, err = asked.Recv(); err == nil; p, err = asked.Recv() {
				if n++; p.Samples != int64(n) {
					t.Errorf("%s: part %d arrives as %d", name, p.Samples, n)
				}
			}
			if n != test.parts || errors.Is(err, io.EOF) == test.fails {
				t.Errorf("%s: %d parts, then %v", name, n, err)
			}
		}
	}
}
