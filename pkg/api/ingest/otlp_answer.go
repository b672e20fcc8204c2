package ingest

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// outcome is what became of an export whose greater part was stored.
type outcome struct {
	refused int // data points
	message string
	delay   time.Duration // how long the answer is held back
}

// response is the answer in words of the protocol; false if the answer is the empty one.
func (o outcome) response() (pmetricotlp.ExportResponse, bool) {
	out := pmetricotlp.NewExportResponse()
	if o.refused == 0 && o.message == "" {
		return out, false
	}
	out.PartialSuccess().SetRejectedDataPoints(int64(o.refused))
	out.PartialSuccess().SetErrorMessage(o.message)
	return out, true
}

// write answers 200 with o in the encoding contentType.
func (o outcome) write(w http.ResponseWriter, contentType string) error {
	var body []byte
	var err error
	switch out, says := o.response(); {
	case contentType == typeJSON && says:
		body, err = out.MarshalJSON()
	case contentType == typeJSON:
		body = []byte("{}")
	case says:
		body, err = out.MarshalProto()
	}
	if err != nil {
		return errs.New(errs.Internal, "encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write(body) // the client is gone if this fails
	return nil
}

// WriteOTLPError sends err as a Status in the encoding of the request, as OTLP wants it. What is worth
// sending again has one of the few statuses that exporters take for that, and a Retry-After.
func (a *API) WriteOTLPError(w http.ResponseWriter, r *http.Request, err error) {
	kind := errs.KindOf(err)
	h := w.Header()
	if kind.Retry() && a.cfg.Retry.Enabled {
		h.Set("Retry-After", strconv.Itoa(a.cfg.Retry.after(r.Header.Get("Retry-Attempt"), a.random())))
	}
	h.Set("X-Content-Type-Options", "nosniff")
	var body []byte
	if strings.HasPrefix(r.Header.Get("Content-Type"), typeJSON) {
		h.Set("Content-Type", typeJSON)
		body, _ = json.Marshal(map[string]any{"code": uint32(kind.GRPCCode()), "message": valid(err)})
	} else {
		h.Set("Content-Type", typeProtobuf)
		body, _ = proto.Marshal(&status.Status{Code: int32(kind.GRPCCode()), Message: valid(err)})
	}
	w.WriteHeader(otlpStatus(kind))
	_, _ = w.Write(body) // the client is gone if this fails
}

// otlpStatus is the status of an error of kind. Exporters send again after few of the statuses from
// 500 on, so all of these become the one that says what is meant.
func otlpStatus(kind errs.Kind) int {
	if code := kind.HTTPStatus(); code < http.StatusInternalServerError {
		return code
	}
	return http.StatusServiceUnavailable
}

// valid is the text of err as protobuf and JSON take it.
func valid(err error) string { return strings.ToValidUTF8(err.Error(), "\uFFFD") }
