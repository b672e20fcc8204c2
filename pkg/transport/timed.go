package transport

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/grafana/dskit/grpcutil"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// timedStreams observes how long calls take that are answered by a stream, with the labels that dskit's interceptor
// gives them. That one starts a goroutine for each call, which costs as much as the rest of a small answer.
func timedStreams(seconds *prometheus.HistogramVec) grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		x := &timedStream{seconds: seconds, method: method, begun: time.Now(), single: !desc.ServerStreams}
		s, err := stream(ctx, desc, cc, method, opts...)
		if err != nil {
			x.observe(err)
			return nil, err
		}
		x.ClientStream = s
		x.left = context.AfterFunc(ctx, func() { x.observe(ctx.Err()) }) // who gives up need not read to the end
		return x, nil
	}
}

// timedStream is a call under way.
type timedStream struct {
	grpc.ClientStream
	seconds *prometheus.HistogramVec
	method  string
	begun   time.Time
	single  bool // there is one answer
	left    func() bool
	ended   atomic.Bool
}

// end observes a call that its caller has seen the end of.
func (s *timedStream) end(err error) {
	s.left()
	s.observe(err)
}

// observe does so once.
func (s *timedStream) observe(err error) {
	if !s.ended.CompareAndSwap(false, true) {
		return
	}
	outcome := "error"
	switch {
	case err == nil, errors.Is(err, io.EOF):
		outcome = "2xx"
	case errors.Is(err, context.Canceled), grpcutil.ErrorToStatusCode(err) == codes.Canceled:
		outcome = "cancel"
	}
	s.seconds.WithLabelValues(s.method, outcome).Observe(time.Since(s.begun).Seconds())
}

// SendMsg implements grpc.ClientStream. Why a stream has ended is for RecvMsg to say.
func (s *timedStream) SendMsg(m any) error {
	err := s.ClientStream.SendMsg(m)
	if err != nil && !errors.Is(err, io.EOF) {
		s.end(err)
	}
	return err
}

// RecvMsg implements grpc.ClientStream.
func (s *timedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil || s.single {
		s.end(err)
	}
	return err
}
