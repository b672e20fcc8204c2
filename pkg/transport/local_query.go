package transport

import (
	"context"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/amphora-metrics/amphora/pkg/errs"
	pb "github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

// localQuery calls an IngesterQueryServer of this process. It implements
// ingesterpb.IngesterQueryClient.
type localQuery struct {
	srv   pb.IngesterQueryServer
	guard guard
}

// localMessages is how many messages a server may be ahead of its client.
const localMessages = 4

// unaryLocal calls f, which is one method of the server. As with gRPC, a caller whose ctx ends does not wait for
// a server that does not notice, such as one whose disk hangs.
func unaryLocal[Req, Resp any](ctx context.Context, g guard, f func(context.Context, *Req) (*Resp, error), in *Req) (*Resp, error) {
	ended := func() error { return errs.Wrap(errs.KindOf(ctx.Err()), context.Cause(ctx)) }
	if ctx.Err() != nil {
		return nil, ended()
	}
	call := func() (out *Resp, err error) {
		defer g.recovered("local query", &err)
		return f(ctx, in)
	}
	if ctx.Done() == nil {
		return call()
	}
	type result struct {
		out *Resp
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := call()
		done <- result{out, err}
	}()
	select {
	case r := <-done:
		return r.out, r.err
	case <-ctx.Done():
		return nil, ended()
	}
}

// Exemplars implements ingesterpb.IngesterQueryClient.
func (l *localQuery) Exemplars(ctx context.Context, in *pb.ExemplarsRequest, _ ...grpc.CallOption) (*pb.ExemplarsResponse, error) {
	return unaryLocal(ctx, l.guard, l.srv.Exemplars, in)
}

// LabelNames implements ingesterpb.IngesterQueryClient.
func (l *localQuery) LabelNames(ctx context.Context, in *pb.LabelNamesRequest, _ ...grpc.CallOption) (*pb.LabelNamesResponse, error) {
	return unaryLocal(ctx, l.guard, l.srv.LabelNames, in)
}

// LabelValues implements ingesterpb.IngesterQueryClient.
func (l *localQuery) LabelValues(ctx context.Context, in *pb.LabelValuesRequest, _ ...grpc.CallOption) (*pb.LabelValuesResponse, error) {
	return unaryLocal(ctx, l.guard, l.srv.LabelValues, in)
}

// Metadata implements ingesterpb.IngesterQueryClient.
func (l *localQuery) Metadata(ctx context.Context, in *pb.MetadataRequest, _ ...grpc.CallOption) (*pb.MetadataResponse, error) {
	return unaryLocal(ctx, l.guard, l.srv.Metadata, in)
}

// TenantStats implements ingesterpb.IngesterQueryClient.
func (l *localQuery) TenantStats(ctx context.Context, in *pb.TenantStatsRequest, _ ...grpc.CallOption) (*pb.TenantStatsResponse, error) {
	return unaryLocal(ctx, l.guard, l.srv.TenantStats, in)
}

// AllTenantStats implements ingesterpb.IngesterQueryClient.
func (l *localQuery) AllTenantStats(ctx context.Context, in *pb.TenantStatsRequest, _ ...grpc.CallOption) (*pb.AllTenantStatsResponse, error) {
	return unaryLocal(ctx, l.guard, l.srv.AllTenantStats, in)
}

// Query implements ingesterpb.IngesterQueryClient.
func (l *localQuery) Query(ctx context.Context, in *pb.QueryRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[pb.QueryResponse], error) {
	return openLocal(ctx, l.guard, func(s grpc.ServerStreamingServer[pb.QueryResponse]) error { return l.srv.Query(in, s) }), nil
}

// Series implements ingesterpb.IngesterQueryClient.
func (l *localQuery) Series(ctx context.Context, in *pb.SeriesRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[pb.SeriesResponse], error) {
	return openLocal(ctx, l.guard, func(s grpc.ServerStreamingServer[pb.SeriesResponse]) error { return l.srv.Series(in, s) }), nil
}

// ActiveSeries implements ingesterpb.IngesterQueryClient.
func (l *localQuery) ActiveSeries(ctx context.Context, in *pb.ActiveSeriesRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[pb.ActiveSeriesResponse], error) {
	return openLocal(ctx, l.guard, func(s grpc.ServerStreamingServer[pb.ActiveSeriesResponse]) error { return l.srv.ActiveSeries(in, s) }), nil
}

// localPipe joins a server's stream to its client. err is set before messages is closed.
type localPipe[T any] struct {
	ctx      context.Context //nolint:containedctx // A gRPC stream is a context and messages.
	messages chan *T
	err      error
}

// openLocal runs serve, which ends when it has sent all or ctx ends: as with gRPC, a client must
// read to the end or cancel ctx.
func openLocal[T any](ctx context.Context, g guard, serve func(grpc.ServerStreamingServer[T]) error) grpc.ServerStreamingClient[T] {
	p := &localPipe[T]{ctx: ctx, messages: make(chan *T, localMessages)}
	go func() {
		defer close(p.messages)
		defer g.recovered("local query", &p.err)
		p.err = serve(&localServerStream[T]{p})
	}()
	return &localClientStream[T]{p}
}

// canceled returns why the pipe's context ended, with its kind.
func (p *localPipe[T]) canceled() error {
	return errs.Wrap(errs.KindOf(p.ctx.Err()), context.Cause(p.ctx))
}

func (p *localPipe[T]) send(m *T) error {
	if p.ctx.Err() != nil {
		return p.canceled()
	}
	select {
	case p.messages <- m:
		return nil
	case <-p.ctx.Done():
		return p.canceled()
	}
}

func (p *localPipe[T]) recv() (*T, error) {
	select {
	case m, ok := <-p.messages:
		switch {
		case ok:
			return m, nil
		case p.err != nil:
			return nil, p.err
		}
		return nil, io.EOF
	case <-p.ctx.Done():
		return nil, p.canceled()
	}
}

// localServerStream is the end that a server sees. What belongs to metadata is empty.
type localServerStream[T any] struct{ pipe *localPipe[T] }

func (s *localServerStream[T]) Send(m *T) error              { return s.pipe.send(m) }
func (s *localServerStream[T]) Context() context.Context     { return s.pipe.ctx }
func (s *localServerStream[T]) SetHeader(metadata.MD) error  { return nil }
func (s *localServerStream[T]) SendHeader(metadata.MD) error { return nil }
func (s *localServerStream[T]) SetTrailer(metadata.MD)       {}

// SendMsg is Send for callers that do not know the type.
func (s *localServerStream[T]) SendMsg(m any) error {
	t, ok := m.(*T)
	if !ok {
		return errs.New(errs.Internal, "local stream cannot send a %T", m)
	}
	return s.pipe.send(t)
}

// RecvMsg reports the end: the one request was an argument.
func (s *localServerStream[T]) RecvMsg(any) error { return io.EOF }

// localClientStream is the end that a client sees.
type localClientStream[T any] struct{ pipe *localPipe[T] }

func (s *localClientStream[T]) Recv() (*T, error)            { return s.pipe.recv() }
func (s *localClientStream[T]) Context() context.Context     { return s.pipe.ctx }
func (s *localClientStream[T]) Header() (metadata.MD, error) { return nil, nil }
func (s *localClientStream[T]) Trailer() metadata.MD         { return nil }
func (s *localClientStream[T]) CloseSend() error             { return nil }

// SendMsg refuses: the one request was an argument.
func (s *localClientStream[T]) SendMsg(any) error {
	return errs.New(errs.Internal, "local stream takes one request")
}

// RecvMsg refuses: messages pass by pointer, which only Recv can return.
func (s *localClientStream[T]) RecvMsg(any) error {
	return errs.New(errs.Internal, "local stream is read by Recv")
}
