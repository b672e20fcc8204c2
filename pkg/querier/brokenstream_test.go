package querier

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/oklog/ulid/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/storepb"
)

// dying serves the first messages of an answer and no end.
type dying struct {
	storepb.UnimplementedStoreGatewayServer
	from  *door
	after int
}

func (d *dying) Series(in *storepb.SeriesRequest, to grpc.ServerStreamingServer[storepb.SeriesResponse]) error {
	s, err := d.from.Series(to.Context(), in)
	if err != nil {
		return err
	}
	for range d.after {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		if err := to.Send(m); err != nil {
			return err
		}
	}
	<-to.Context().Done()
	return to.Context().Err()
}

// wires is a listener whose connections can be broken, as the end of a process breaks them.
type wires struct {
	net.Listener

	mu    sync.Mutex // guards conns
	conns []net.Conn
}

func (w *wires) Accept() (net.Conn, error) {
	c, err := w.Listener.Accept()
	if err == nil {
		w.mu.Lock()
		w.conns = append(w.conns, c)
		w.mu.Unlock()
	}
	return c, err
}

func (w *wires) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close()
	}
}

// TestAnAnswerThatBreaksOffIsNone has a store-gateway end after each message of a stream, also when only its end is
// missing: the next one answers for all blocks, and without another there is an error.
func TestAnAnswerThatBreaksOffIsNone(t *testing.T) {
	t.Parallel()
	for after := range 6 { // four series, the names of the blocks, the end
		for _, owners := range []string{"ab", "a"} {
			d := newDoors(t, owners, owners, owners, owners)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			w := &wires{Listener: l}
			srv := grpc.NewServer()
			storepb.RegisterStoreGatewayServer(srv, &dying{from: d.doors["a"], after: after})
			go func() { _ = srv.Serve(w) }()
			t.Cleanup(srv.Stop)
			conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			client, b := d.q.deps.Stores.Client, d.counted(t)
			d.q.deps.Stores.Client = func(addr string) (storepb.StoreGatewayClient, error) {
				if addr == "a" {
					return &cutting{storepb.NewStoreGatewayClient(conn), after, w.cut}, nil
				}
				return client(addr)
			}
			got, missing, _, err := d.series(t.Context(), b)
			if owners == "a" {
				if errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "too many store-gateways failed") || len(got) > 0 {
					t.Errorf("after %d messages: %v, %v", after, got, err)
				}
				continue
			}
			if err != nil || len(missing) > 0 || !once(got, d.all()) || b.chunks != len(d.blocks) || d.doors["b"].asked[ulid.ULID{0, 0, 1}] != 1 {
				t.Errorf("after %d messages: %v, without %v, %v; %d chunks are charged", after, got, missing, err, b.chunks)
			}
		}
	}
}

// cutting breaks the connection when so many messages have been received.
type cutting struct {
	storepb.StoreGatewayClient
	after int
	cut   func()
}

func (c *cutting) Series(ctx context.Context, in *storepb.SeriesRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[storepb.SeriesResponse], error) {
	s, err := c.StoreGatewayClient.Series(ctx, in, opts...)
	return &cutStream{s, c}, err
}

type cutStream struct {
	grpc.ServerStreamingClient[storepb.SeriesResponse]
	c *cutting
}

func (s *cutStream) Recv() (*storepb.SeriesResponse, error) {
	if s.c.after == 0 {
		s.c.cut()
	}
	s.c.after--
	return s.ServerStreamingClient.Recv()
}
