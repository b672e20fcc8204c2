package work

import (
	"encoding/binary"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
)

// ExactType is the content type of an answer of the query API to those who accept it: the result as processes
// tell it each other, since JSON does not show native histograms whole. It is a sequence of messages
// querypb.Part, each preceded by its length as a varint, and ends with a length of 0.
const ExactType = "application/vnd.amphora.query-result"

// AcceptsExact says whether a value of the header Accept names ExactType.
func AcceptsExact(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		name, _, _ := strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(name), ExactType) {
			return true
		}
	}
	return false
}

// Exact hands the pieces of an answer of ExactType to write. text is the query that positions in ws refer to.
func Exact(v parser.Value, ws annotations.Annotations, text string, write func([]byte)) error {
	piece := func(p *querypb.Part) error {
		n := p.SizeVT()
		if n == 0 {
			return nil // it would be taken for the end
		}
		out := binary.AppendUvarint(make([]byte, 0, binary.MaxVarintLen64+n), uint64(n)) //nolint:gosec // A size is positive.
		body, err := p.MarshalVT()
		if err != nil {
			return errs.New(errs.Internal, "encode an answer: %w", err)
		}
		write(append(out, body...))
		return nil
	}
	err := encode(&Result{Value: v, Warnings: ws}, asker{text: text}, sink{piece, piece})
	if err == nil {
		write([]byte{0})
	}
	return err
}

// ReadExact reads an answer of ExactType. Its memory is body's. Errors: Internal.
func ReadExact(body []byte) (parser.Value, error) {
	var r receiver
	for {
		size, n := binary.Uvarint(body)
		if n == 1 && size == 0 {
			break
		}
		if n <= 0 || size > uint64(len(body)-n) { //nolint:gosec // What is left is positive.
			return nil, errs.New(errs.Internal, "an answer is cut off")
		}
		var p querypb.Part
		if err := p.UnmarshalVT(body[n : n+int(size)]); err != nil { //nolint:gosec // Not over the length of body.
			return nil, errs.New(errs.Internal, "read an answer: %w", err)
		}
		if err := r.add(&p); err != nil {
			return nil, err
		}
		body = body[n+int(size):] //nolint:gosec // As above.
	}
	if len(body) > 1 {
		return nil, errs.New(errs.Internal, "an answer goes on after its end")
	}
	res, err := r.result()
	if err != nil {
		return nil, err
	}
	return res.Value, nil
}
