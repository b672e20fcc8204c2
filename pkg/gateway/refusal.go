package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/identity"
	"github.com/amphora-metrics/amphora/pkg/sigv4"
)

// refusal is an answer that is no. Its text goes to the client.
type refusal struct {
	status int
	code   string // as AWS's clients know it
	text   string
}

func (r *refusal) Error() string { return r.text }

func refuse(status int, code, format string, args ...any) error {
	return &refusal{status, code, fmt.Sprintf(format, args...)}
}

// The codes that are used in several places.
const (
	codeDenied      = "AccessDeniedException"
	codeUnknown     = "UnrecognizedClientException"
	codeExpired     = "ExpiredTokenException"
	codeUnavailable = "ServiceUnavailableException"
	codeThrottled   = "ThrottlingException"
	codeTooLarge    = "RequestEntityTooLargeException"
)

// asRefusal says what err is to a client.
func asRefusal(err error) *refusal {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r
	}
	if e, ok := errors.AsType[*sigv4.Error](err); ok {
		return &refusal{e.Status, e.Code, e.Message}
	}
	switch kind := errs.KindOf(err); kind {
	case errs.Unauthenticated:
		if identity.IsExpired(err) {
			return &refusal{http.StatusForbidden, codeExpired, err.Error()}
		}
		return &refusal{http.StatusForbidden, codeUnknown, "The security token included in the request is invalid."}
	case errs.Unavailable, errs.Timeout:
		return &refusal{http.StatusServiceUnavailable, codeUnavailable, err.Error()}
	case errs.Internal:
		return &refusal{http.StatusInternalServerError, kind.AWSType(), "internal error, see the log of the process"}
	default:
		return &refusal{kind.HTTPStatus(), kind.AWSType(), err.Error()}
	}
}

// fail answers with err, in the way that the clients of the route read.
func (g *Gateway) fail(w http.ResponseWriter, r *http.Request, c *call, err error) {
	no := asRefusal(err)
	if no.status == http.StatusInternalServerError {
		g.log.Error("request failed in the gateway", "path", r.URL.Path, "err", err)
	}
	g.metrics.requests.WithLabelValues(c.target.flavour.String(), outcome(no.status)).Inc()
	style := c.style()
	status := no.status
	challenge := style != AWS && no.code != codeDenied && status == http.StatusForbidden
	h := w.Header()
	if challenge { // who calls is not known: these clients expect 401, and browsers ask
		status = http.StatusUnauthorized
		h.Set("WWW-Authenticate", `Basic realm="amphora"`)
	}
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		h.Set("Retry-After", strconv.Itoa(retryAfterSeconds))
	}
	h.Set("X-Amzn-Requestid", c.id)
	h.Set("X-Content-Type-Options", "nosniff")
	switch style {
	case AWS:
		h.Set("Content-Type", "application/json")
		h.Set("X-Amzn-Errortype", no.code)
		writeJSON(w, status, map[string]string{"__type": no.code, "message": no.text, "Message": no.text})
	case Prom:
		h.Set("Content-Type", "application/json")
		writeJSON(w, status, map[string]string{"status": "error", "errorType": promType(status), "error": no.text})
	case GRPC:
		h.Set("Content-Type", "application/grpc")
		h.Set("Grpc-Status", strconv.Itoa(grpcStatus(status)))
		h.Set("Grpc-Message", grpcMessage(no.text))
		w.WriteHeader(http.StatusOK)
	default:
		h.Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(no.text + "\n")) // the client is gone if this fails
	}
}

// retryAfterSeconds is when a request that could not be decided is worth another try.
const retryAfterSeconds = 5

// style is that of the route; who signs as AWS's clients do is answered as they expect.
func (c *call) style() Style {
	rt := c.target.route
	switch {
	case rt != nil && rt.Style == GRPC:
		return GRPC
	case c.scheme == schemeSigned, c.target.flavour == amazon, c.target.flavour == operation:
		return AWS
	case rt != nil:
		return rt.Style
	case c.target.flavour == alibaba:
		return Prom
	}
	return Plain
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone if this fails
}

func promType(status int) string {
	for _, k := range errs.Kinds() {
		if k.HTTPStatus() == status && k != errs.Timeout {
			return k.PrometheusType()
		}
	}
	return errs.Internal.PrometheusType()
}

func grpcStatus(status int) int {
	for _, k := range errs.Kinds() {
		if k.HTTPStatus() == status && k != errs.Timeout {
			return int(k.GRPCCode())
		}
	}
	return int(errs.Internal.GRPCCode())
}

// grpcMessage writes a text as gRPC wants it in a header: other bytes than printable ASCII as %XX.
func grpcMessage(text string) string {
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func outcome(status int) string {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return "denied"
	case http.StatusTooManyRequests:
		return "throttled"
	case http.StatusServiceUnavailable:
		return "unavailable"
	case http.StatusNotFound:
		return "unknown"
	}
	return "refused"
}
