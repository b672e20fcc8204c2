package otlp

import (
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// jsonBytes is about how much memory decoding takes for a byte of JSON.
	jsonBytes = 16
	// maxJSONDepth is more than a request with attributes of the deepest kind has.
	maxJSONDepth = 16 + 4*maxDepth
)

// JSONBytes is about how much memory FromJSON takes for n bytes.
func JSONBytes(n int) int { return jsonBytes * n }

// FromJSON returns a request in the JSON encoding in the protobuf encoding. JSON is for people and
// browsers; OpenTelemetry's own decoder does it. Errors: Invalid.
func FromJSON(body []byte) ([]byte, error) {
	if !shallowJSON(body) {
		return nil, malformed("JSON that is nested too deep")
	}
	req := pmetricotlp.NewExportRequest()
	if err := req.UnmarshalJSON(body); err != nil {
		return nil, errs.New(errs.Invalid, "malformed OTLP request: JSON: %w", err)
	}
	out, err := req.MarshalProto()
	return out, errs.Wrap(errs.Internal, err)
}

// shallowJSON says whether objects and lists are not nested too deep; each level costs the decoder
// stack.
func shallowJSON(b []byte) bool {
	depth, inText := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case inText:
		case c == '{', c == '[':
			if depth++; depth > maxJSONDepth {
				return false
			}
		case c == '}', c == ']':
			depth--
		}
	}
	return true
}
