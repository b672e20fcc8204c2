package ingest

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	typeGRPC = "application/grpc"
	// grpcHeadBytes is what stands before a message: whether it is packed, and its length.
	grpcHeadBytes = 5
	// grpcEncodings are how a message may be packed.
	grpcEncodings = "identity,gzip,zstd,snappy"
	// maxGRPCMessage bounds the text of an error, which travels in a header.
	maxGRPCMessage = 8 << 10
)

// ExportGRPC answers the call Export of OpenTelemetry's MetricsService. A gRPC call of one message is
// an HTTP/2 request whose body has the message behind a head of five bytes, and whose outcome stands in
// trailers. So it takes the same way through the table of routes as all other pushes: the same checks of
// tenant and action, limits, bounds of memory and metrics.
func (a *API) ExportGRPC(w http.ResponseWriter, r *http.Request) error {
	start := time.Now()
	if r.ProtoMajor != 2 {
		return errs.New(errs.Unsupported, "gRPC needs HTTP/2")
	}
	if t := r.Header.Get("Content-Type"); t != typeGRPC && t != typeGRPC+"+proto" {
		return errs.New(errs.Unsupported, "content type %q is not supported; use %s", t, typeGRPC)
	}
	stored, err := a.receiveGRPC(w, r)
	if err != nil && errs.KindOf(err) != errs.Accepted {
		return err
	}
	holdBack(w, r, start, stored.delay)
	var message []byte
	if out, says := stored.response(); says {
		if message, err = out.MarshalProto(); err != nil {
			return errs.New(errs.Internal, "encode the answer: %w", err)
		}
	}
	grpcHeaders(w.Header())
	head := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	_, _ = w.Write(append(head, message...)) // the client is gone if this fails
	w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	return nil
}

// receiveGRPC stores what r carries. Its memory is given back when it returns.
func (a *API) receiveGRPC(w http.ResponseWriter, r *http.Request) (none outcome, err error) {
	ctx, cancel, err := grpcContext(r)
	if err != nil {
		return none, err
	}
	defer cancel()
	share := a.bodies.share()
	defer share.release()
	most := a.cfg.Protocols.MaxOTLPBytes + grpcHeadBytes
	body := a.first(r, most)
	defer func() { a.buffers.give(body) }()
	if body, err = a.readBody(w, r, body, share, most); err != nil {
		return none, a.otlpTooLarge(err)
	}
	e, err := grpcMessage(body, r.Header.Get("Grpc-Encoding"))
	if err != nil {
		return none, err
	}
	return a.export(ctx, e, share)
}

func grpcHeaders(h http.Header) {
	h.Set("Content-Type", typeGRPC)
	h.Set("Grpc-Accept-Encoding", grpcEncodings)
}

// grpcMessage takes the one message out of a body. Errors: Invalid, Unsupported.
func grpcMessage(body []byte, encoding string) (export, error) {
	if len(body) < grpcHeadBytes || uint64(binary.BigEndian.Uint32(body[1:])) != uint64(len(body)-grpcHeadBytes) {
		return export{}, errs.New(errs.Invalid, "malformed gRPC request: it must have one message")
	}
	packed := body[0] != 0
	switch {
	case body[0] > 1, packed && (encoding == "" || encoding == "identity"):
		return export{}, errs.New(errs.Invalid, "malformed gRPC request: the message is packed in no known way")
	case !packed:
		encoding = ""
	case encoding == "snappy": // of gRPC, the form with frames
		encoding = "x-snappy-framed"
	case encoding != "gzip" && encoding != "zstd":
		return export{}, errs.New(errs.Unsupported, "message encoding %q is not supported; use one of %s", encoding, grpcEncodings)
	}
	return export{packed: body[grpcHeadBytes:], encoding: encoding}, nil
}

// grpcContext is the context of r with the deadline that its client set. Errors: Invalid.
func grpcContext(r *http.Request) (context.Context, context.CancelFunc, error) {
	text := r.Header.Get("Grpc-Timeout")
	if text == "" {
		return r.Context(), func() {}, nil
	}
	unit, ok := map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second,
		'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond}[text[len(text)-1]]
	n, err := strconv.ParseUint(text[:len(text)-1], 10, 32)
	if !ok || err != nil || len(text) > 9 {
		return nil, nil, errs.New(errs.Invalid, "malformed gRPC timeout %q", clipText(text))
	}
	const longest = 24 * time.Hour // longer ones would overflow, and nobody waits for them
	d := min(time.Duration(n), longest/unit+1) * unit
	ctx, cancel := context.WithTimeout(r.Context(), min(d, longest))
	return ctx, cancel, nil
}

// clipText is at most 32 bytes of what a client sent, for errors.
func clipText(s string) string { return s[:min(len(s), 32)] }

// WriteGRPCError ends a call with err and returns the status that HTTP would have, for metrics.
// Exporters send again what is unavailable, and what is exhausted only if they are told when.
func (a *API) WriteGRPCError(w http.ResponseWriter, r *http.Request, err error) int {
	if !strings.HasPrefix(r.Header.Get("Content-Type"), typeGRPC) { // no gRPC client
		a.WriteError(w, r, err)
		return errs.HTTPStatus(err)
	}
	kind := errs.KindOf(err)
	code := kind.GRPCCode()
	switch kind {
	case errs.Internal:
		code = codes.Unavailable // as over HTTP: it may go well elsewhere
	case errs.Unsupported:
		code = codes.Unimplemented
	}
	s := &status.Status{Code: int32(code), Message: valid(err)}
	if len(s.Message) > maxGRPCMessage {
		s.Message = strings.ToValidUTF8(s.Message[:maxGRPCMessage], "")
	}
	h := w.Header()
	grpcHeaders(h)
	if kind.Retry() && a.cfg.Retry.Enabled {
		after := time.Duration(a.cfg.Retry.after(r.Header.Get("Retry-Attempt"), a.random())) * time.Second
		if detail, err := anypb.New(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)}); err == nil {
			s.Details = append(s.Details, detail)
		}
	}
	w.WriteHeader(http.StatusOK)
	h.Set(http.TrailerPrefix+"Grpc-Status", strconv.Itoa(int(code)))
	h.Set(http.TrailerPrefix+"Grpc-Message", percentEncode(s.GetMessage()))
	if details, err := proto.Marshal(s); err == nil {
		h.Set(http.TrailerPrefix+"Grpc-Status-Details-Bin", base64.RawStdEncoding.EncodeToString(details))
	}
	return otlpStatus(kind)
}

// percentEncode is how gRPC puts text into a header.
func percentEncode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' && c != '%' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
