package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/grafana/dskit/user"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// guard turns panics of handlers into errors, so that one bad request does not end the process.
type guard struct {
	log    *slog.Logger
	panics prometheus.Counter
}

// recovered is deferred; it replaces *err if the function panics.
func (g guard) recovered(what string, err *error) {
	p := recover()
	if p == nil {
		return
	}
	g.panics.Inc()
	g.log.Error("handler panicked, the call is answered with an error", "call", what, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	*err = errs.New(errs.Internal, "%s panicked", what)
}

func (g guard) unaryServer(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	defer func() { err = toStatus(err) }()
	defer g.recovered(info.FullMethod, &err)
	if ctx, err = receiveTenant(ctx); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (g guard) streamServer(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer func() { err = toStatus(err) }()
	defer g.recovered(info.FullMethod, &err)
	ctx, err := receiveTenant(stream.Context())
	if err != nil {
		return err
	}
	return handler(srv, &tenantStream{stream, ctx})
}

// http logs what panics around the handlers of a server, which look after themselves. The library would log it
// at a level that nobody reads; all the client sees is an answer without its end.
func (g guard) http(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if err, ok := p.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				g.panics.Inc()
				g.log.Error("request panicked outside of its handler, its connection is cut", "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			}
			panic(http.ErrAbortHandler)
		}()
		next.ServeHTTP(w, r)
	})
}

// tenantStream is a stream whose context acts for the tenant of its metadata.
type tenantStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *tenantStream) Context() context.Context { return s.ctx }

// receiveTenant returns ctx acting for the tenants that the call's metadata names, which are
// checked because they become parts of paths. A call without tenant is for the handler to judge.
func receiveTenant(ctx context.Context) (context.Context, error) {
	org, ctx, err := user.ExtractFromGRPCRequest(ctx)
	if err != nil || org == "" {
		return ctx, nil //nolint:nilerr // Calls without a tenant exist.
	}
	if _, err := tenant.ParseMany(org); err != nil {
		return ctx, err
	}
	return ctx, nil
}

// sendTenant adds the tenants for which ctx acts to the metadata of an outgoing call.
func sendTenant(ctx context.Context) (context.Context, error) {
	if _, err := user.ExtractOrgID(ctx); err != nil {
		return ctx, nil //nolint:nilerr // Calls without a tenant exist.
	}
	ctx, err := user.InjectIntoGRPCRequest(ctx)
	return ctx, errs.Wrap(errs.Internal, err)
}

func unaryClient(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx, err := sendTenant(ctx)
	if err != nil {
		return err
	}
	return fromStatus(invoke(ctx, method, req, reply, cc, opts...))
}

func streamClient(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, err := sendTenant(ctx)
	if err != nil {
		return nil, err
	}
	s, err := stream(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, fromStatus(err)
	}
	return &kindStream{s}, nil
}

// kindStream gives the errors of a client's stream their kinds.
type kindStream struct{ grpc.ClientStream }

func (s *kindStream) RecvMsg(m any) error { return fromStatus(s.ClientStream.RecvMsg(m)) }
func (s *kindStream) SendMsg(m any) error { return fromStatus(s.ClientStream.SendMsg(m)) }
