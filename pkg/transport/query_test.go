package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	pb "github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

// queries is an IngesterQueryServer whose answers a test sets.
type queries struct {
	pb.UnimplementedIngesterQueryServer
	stream func(grpc.ServerStreamingServer[pb.QueryResponse]) error
	names  func(context.Context) (*pb.LabelNamesResponse, error)
}

func (q *queries) Query(_ *pb.QueryRequest, s grpc.ServerStreamingServer[pb.QueryResponse]) error {
	return q.stream(s)
}

func (q *queries) LabelNames(ctx context.Context, _ *pb.LabelNamesRequest) (*pb.LabelNamesResponse, error) {
	return q.names(ctx)
}

// bothWays runs f with a client over gRPC and one in this process, which must not differ.
func bothWays(t *testing.T, q *queries, f func(t *testing.T, c pb.IngesterQueryClient)) {
	newClients := func(t *testing.T) *Clients {
		noLeaks(t)
		c, err := NewClients(ClientConfig{}, ClientDeps{Registerer: prometheus.NewRegistry(), Log: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		startService(t, c)
		return c
	}
	client := func(t *testing.T, c *Clients, addr string) pb.IngesterQueryClient {
		got, err := c.For(addr)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	t.Run("grpc", func(t *testing.T) {
		clients := newClients(t)
		s, _ := startServer(t, Config{}, func(s *Server) { pb.RegisterIngesterQueryServer(s.GRPC(), q) })
		f(t, client(t, clients, s.GRPCAddr().String()))
	})
	t.Run("local", func(t *testing.T) {
		clients := newClients(t)
		if err := clients.Register("here:1", q); err != nil {
			t.Fatal(err)
		}
		f(t, client(t, clients, "here:1"))
	})
}

func TestKindAndTextOfErrorsSurvive(t *testing.T) {
	var fail error
	q := &queries{names: func(context.Context) (*pb.LabelNamesResponse, error) { return nil, fail },
		stream: func(s grpc.ServerStreamingServer[pb.QueryResponse]) error {
			if err := s.Send(&pb.QueryResponse{}); err != nil {
				return err
			}
			return fail
		}}
	bothWays(t, q, func(t *testing.T, c pb.IngesterQueryClient) {
		for _, k := range errs.Kinds() {
			fail = fmt.Errorf("query tenant ä: %w", errs.WithID(k, "some-id", "Do this.", "limit %d%%", 5))
			_, err := c.LabelNames(context.Background(), &pb.LabelNamesRequest{})
			if errs.KindOf(err) != k || err.Error() != fail.Error() {
				t.Errorf("call: %v of kind %v, want %v of kind %v", err, errs.KindOf(err), fail, k)
			}
			s, err := c.Query(context.Background(), &pb.QueryRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Recv(); err != nil {
				t.Fatalf("first message: %v", err)
			}
			if _, err := s.Recv(); errs.KindOf(err) != k || err.Error() != fail.Error() {
				t.Errorf("stream: %v of kind %v, want %v of kind %v", err, errs.KindOf(err), fail, k)
			}
		}
	})
}

func TestTenantsTravelWithCalls(t *testing.T) {
	q := &queries{names: func(ctx context.Context) (*pb.LabelNamesResponse, error) {
		ids, err := tenant.Many(ctx)
		if err != nil {
			return nil, err
		}
		out := &pb.LabelNamesResponse{}
		for _, id := range ids {
			out.Names = append(out.Names, string(id))
		}
		return out, nil
	}}
	bothWays(t, q, func(t *testing.T, c pb.IngesterQueryClient) {
		got, err := c.LabelNames(tenant.InjectMany(context.Background(), []tenant.ID{"a", "b"}), &pb.LabelNamesRequest{})
		if err != nil || strings.Join(got.GetNames(), ",") != "a,b" {
			t.Errorf("two tenants: %v, %v", got, err)
		}
		if _, err := c.LabelNames(context.Background(), &pb.LabelNamesRequest{}); errs.KindOf(err) != errs.Unauthenticated {
			t.Errorf("no tenant: %v, want Unauthenticated", err)
		}
		if _, err := c.LabelNames(tenant.Inject(context.Background(), "../a"), &pb.LabelNamesRequest{}); errs.KindOf(err) != errs.Invalid {
			t.Errorf("bad tenant: %v, want Invalid", err)
		}
	})
}

func TestStreamsDeliverInOrderAndEnd(t *testing.T) {
	q := &queries{stream: func(s grpc.ServerStreamingServer[pb.QueryResponse]) error {
		for i := range 100 {
			if err := s.Send(&pb.QueryResponse{Series: []*pb.Series{{Labels: []string{"i", fmt.Sprint(i)}}}}); err != nil {
				return err
			}
		}
		return nil
	}}
	bothWays(t, q, func(t *testing.T, c pb.IngesterQueryClient) {
		s, err := c.Query(context.Background(), &pb.QueryRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; ; i++ {
			m, err := s.Recv()
			if errors.Is(err, io.EOF) && i == 100 {
				return
			}
			if err != nil || m.GetSeries()[0].GetLabels()[1] != fmt.Sprint(i) {
				t.Fatalf("message %d: %v, %v", i, m, err)
			}
		}
	})
}

func TestCancelEndsBothSides(t *testing.T) {
	ended := make(chan error, 1)
	q := &queries{stream: func(s grpc.ServerStreamingServer[pb.QueryResponse]) error {
		for {
			if err := s.Send(&pb.QueryResponse{}); err != nil {
				ended <- s.Context().Err()
				return err
			}
		}
	}}
	bothWays(t, q, func(t *testing.T, c pb.IngesterQueryClient) {
		ctx, cancel := context.WithCancel(context.Background())
		s, err := c.Query(ctx, &pb.QueryRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
		cancel()
		for err == nil {
			_, err = s.Recv()
		}
		if errs.KindOf(err) != errs.Canceled {
			t.Errorf("client: %v, want Canceled", err)
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("server: %v, want its context canceled", err)
		}
	})
}

// TestNobodyWaitsForAHandlerThatDoesNotNotice ends calls, by hand and by their deadlines, of a server that goes on: it is
// told, and the caller goes.
func TestNobodyWaitsForAHandlerThatDoesNotNotice(t *testing.T) {
	for name, w := range map[string]struct {
		after time.Duration // the deadline; 0: it is ended by hand
		kind  errs.Kind
	}{
		"canceled": {0, errs.Canceled},
		"too late": {50 * time.Millisecond, errs.Timeout},
	} {
		t.Run(name, func(t *testing.T) {
			q := &queries{}
			bothWays(t, q, func(t *testing.T, c pb.IngesterQueryClient) {
				begun, hang, told := make(chan struct{}, 10), make(chan struct{}), make(chan error, 10)
				q.names = func(ctx context.Context) (*pb.LabelNamesResponse, error) {
					begun <- struct{}{}
					<-hang
					<-ctx.Done()
					told <- ctx.Err()
					return nil, ctx.Err()
				}
				// A machine that stands still may end a call before the server has it: then it is asked for longer.
				for after := w.after; len(begun) == 0 && after < time.Minute; after *= 4 {
					ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(after, time.Hour))
					t.Cleanup(cancel)
					result := make(chan error, 1)
					go func() {
						_, err := c.LabelNames(ctx, &pb.LabelNamesRequest{})
						result <- err
					}()
					if after == 0 {
						begun <- <-begun
						cancel()
					}
					select {
					case err := <-result:
						if errs.KindOf(err) != w.kind {
							t.Errorf("client: %v, want %s", err, w.kind)
						}
					case <-time.After(30 * time.Second):
						t.Error("the caller waits for the handler")
					}
				}
				close(hang)
				if len(begun) == 0 {
					t.Fatal("the server is not asked")
				}
				if err := <-told; err == nil {
					t.Error("the server is not told")
				}
			})
		})
	}
}

func TestPanicOfAHandlerIsAnError(t *testing.T) {
	q := &queries{names: func(context.Context) (*pb.LabelNamesResponse, error) { panic("boom") },
		stream: func(grpc.ServerStreamingServer[pb.QueryResponse]) error { panic("boom") }}
	bothWays(t, q, func(t *testing.T, c pb.IngesterQueryClient) {
		if _, err := c.LabelNames(context.Background(), &pb.LabelNamesRequest{}); errs.KindOf(err) != errs.Internal || !strings.Contains(err.Error(), "panicked") {
			t.Errorf("call: %v, want Internal", err)
		}
		s, err := c.Query(context.Background(), &pb.QueryRequest{})
		if err == nil {
			_, err = s.Recv()
		}
		if errs.KindOf(err) != errs.Internal || !strings.Contains(err.Error(), "panicked") {
			t.Errorf("stream: %v, want Internal", err)
		}
	})
}

func TestCallsWithoutAnswerEndWithTheirDeadline(t *testing.T) {
	q := &queries{names: func(ctx context.Context) (*pb.LabelNamesResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	bothWays(t, q, func(t *testing.T, c pb.IngesterQueryClient) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		if _, err := c.LabelNames(ctx, &pb.LabelNamesRequest{}); errs.KindOf(err) != errs.Timeout {
			t.Errorf("%v, want Timeout", err)
		}
	})
}

func TestStatusesOfOthersGetKinds(t *testing.T) {
	for code, want := range map[codes.Code]errs.Kind{
		codes.Unavailable: errs.Unavailable, codes.ResourceExhausted: errs.BodyTooLarge, codes.Unimplemented: errs.Unimplemented,
		codes.DataLoss: errs.Internal, codes.Canceled: errs.Canceled, codes.DeadlineExceeded: errs.Timeout,
	} {
		if got := errs.KindOf(fromStatus(status.Error(code, "x"))); got != want {
			t.Errorf("%v: %v, want %v", code, got, want)
		}
	}
	if err := fromStatus(errTest); !errors.Is(err, errTest) {
		t.Errorf("an error that is no status became %v", err)
	}
	long := toStatus(errs.New(errs.Quota, "%s", strings.Repeat("ä", maxStatusBytes)+"\xff"))
	if got := fromStatus(long); errs.KindOf(got) != errs.Quota || len(got.Error()) > maxStatusBytes {
		t.Errorf("long text: %d bytes of kind %v", len(got.Error()), errs.KindOf(got))
	}
	// A kind passes through a second process.
	again := fromStatus(toStatus(fmt.Errorf("querier: %w", fromStatus(toStatus(errs.New(errs.TooLarge, "too many series"))))))
	if errs.KindOf(again) != errs.TooLarge || again.Error() != "querier: too many series" {
		t.Errorf("two hops: %v of kind %v", again, errs.KindOf(again))
	}
}
