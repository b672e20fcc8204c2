package storepb

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// counter is a store-gateway that knows one block, of 7 series.
type counter struct {
	UnimplementedStoreGatewayServer
}

func (counter) Stats(in *StatsRequest, to grpc.ServerStreamingServer[StatsResponse]) error {
	if in.Piecemeal {
		if err := to.Send(&StatsResponse{}); err != nil {
			return err
		}
	}
	return to.Send(&StatsResponse{Blocks: in.Blocks, Stats: []*BlockStats{{Series: 7}}})
}

// older describes a store-gateway whose Stats gives one message and knows of no other way.
var older = grpc.ServiceDesc{ServiceName: StoreGateway_ServiceDesc.ServiceName, HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
	MethodName: "Stats",
	Handler: func(_ any, _ context.Context, read func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := &StatsRequest{}
		if err := read(in); err != nil {
			return nil, err
		}
		return &StatsResponse{Blocks: in.Blocks, Stats: []*BlockStats{{Series: 7}}}, nil
	},
}}}

// TestCountsPassBetweenVersions has a querier that reads one message ask, and a store-gateway that sends one be asked.
func TestCountsPassBetweenVersions(t *testing.T) {
	t.Parallel()
	serve := func(register func(*grpc.Server)) *grpc.ClientConn {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := grpc.NewServer()
		register(srv)
		go func() { _ = srv.Serve(l) }()
		t.Cleanup(srv.Stop)
		conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	this := serve(func(s *grpc.Server) { RegisterStoreGatewayServer(s, counter{}) })
	before := serve(func(s *grpc.Server) { s.RegisterService(&older, struct{}{}) })
	blocks := [][]byte{[]byte("one")}

	out := &StatsResponse{}
	if err := this.Invoke(t.Context(), StoreGateway_Stats_FullMethodName, &StatsRequest{Blocks: blocks}, out); err != nil || len(out.Blocks) != 1 || out.Stats[0].Series != 7 {
		t.Errorf("an older querier is told %v, %v", out, err)
	}
	for name, conn := range map[string]*grpc.ClientConn{"this": this, "older": before} {
		stream, err := NewStoreGatewayClient(conn).Stats(t.Context(), &StatsRequest{Blocks: blocks, Piecemeal: true})
		if err != nil {
			t.Fatal(err)
		}
		var told []*StatsResponse
		for {
			m, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			told = append(told, m)
		}
		if last := told[len(told)-1]; len(last.Blocks) != 1 || last.Stats[0].Series != 7 || (len(told) == 2) != (name == "this") {
			t.Errorf("%s store-gateway tells %v", name, told)
		}
	}
}
