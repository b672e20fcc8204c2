package transport

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/telemetry/activity"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
	"github.com/amphora-metrics/amphora/pkg/wire/storepb"
)

// watch tells of the queries of other processes that are under way here.
type watch struct{ t *activity.Tracker }

// watched says whether calls of a method are queries.
func watched(method string) bool {
	service, _, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	return service == ingesterpb.IngesterQuery_ServiceDesc.ServiceName || service == storepb.StoreGateway_ServiceDesc.ServiceName
}

func (w watch) unaryServer(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if !watched(info.FullMethod) {
		return handler(ctx, req)
	}
	ctx, end := w.t.Begin(ctx, "gRPC "+info.FullMethod, func() string { return selected(req) })
	defer end()
	return handler(ctx, req)
}

func (w watch) streamServer(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if !watched(info.FullMethod) {
		return handler(srv, stream)
	}
	s := &watchedStream{tenantStream: tenantStream{stream, stream.Context()}, t: w.t, method: info.FullMethod}
	defer func() {
		if s.end != nil {
			s.end()
		}
	}()
	return handler(srv, s)
}

// watchedStream tells what it is asked for, which is known before the handler of a call that has one request runs.
type watchedStream struct {
	tenantStream
	t      *activity.Tracker
	method string
	end    func()
}

// RecvMsg implements grpc.ServerStream.
func (s *watchedStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if err == nil && s.end == nil {
		s.ctx, s.end = s.t.Begin(s.ctx, "gRPC "+s.method, func() string { return selected(m) })
	}
	return err
}

// selected is what a request selects, as far as it says so.
func selected(req any) string {
	var b strings.Builder
	if r, ok := req.(interface {
		GetMinTime() int64
		GetMaxTime() int64
	}); ok {
		b.WriteString("from=" + instant(r.GetMinTime()) + " to=" + instant(r.GetMaxTime()) + " ")
	}
	if r, ok := req.(interface{ GetBlocks() [][]byte }); ok {
		fmt.Fprintf(&b, "blocks=%d ", len(r.GetBlocks()))
	}
	switch r := req.(type) {
	case interface{ GetMatchers() []*ingesterpb.Matcher }:
		appendSelector(&b, r.GetMatchers())
	case interface {
		GetMatchers() []*ingesterpb.Matchers
	}:
		for _, set := range r.GetMatchers() {
			appendSelector(&b, set.GetMatchers())
		}
	}
	return strings.TrimSpace(b.String())
}

func appendSelector(b *strings.Builder, ms []*ingesterpb.Matcher) {
	b.WriteByte('{')
	for i, m := range ms {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(m.GetName() + operator(m.GetType()) + strconv.Quote(m.GetValue()))
	}
	b.WriteByte('}')
}

func instant(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339Nano) }

func operator(t ingesterpb.Matcher_Type) string {
	switch t {
	case ingesterpb.Matcher_NOT_EQUAL:
		return "!="
	case ingesterpb.Matcher_REGEX:
		return "=~"
	case ingesterpb.Matcher_NOT_REGEX:
		return "!~"
	}
	return "="
}
