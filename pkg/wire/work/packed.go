package work

import (
	"slices"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/labeltext"
	"github.com/amphora-metrics/amphora/pkg/wire/packed"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
)

// packable says whether v is series without histograms.
func packable(v parser.Value) bool {
	switch v := v.(type) {
	case promql.Vector:
		for i := range v {
			if v[i].H != nil {
				return false
			}
		}
		return true
	case promql.Matrix:
		for i := range v {
			if len(v[i].Histograms) > 0 {
				return false
			}
		}
		return true
	}
	return false
}

// pack sends a value that is packable.
func (e *encoder) pack(v parser.Value) error {
	p := packer{encoder: e}
	switch v := v.(type) {
	case promql.Vector:
		e.part.Head.Type = querypb.Head_VECTOR
		for i := range v {
			p.room(len(v)-i, len(labeltext.Of(v[i].Metric)), 1)
			p.buf = packed.AppendPoint(packed.AppendLabels(p.buf, v[i].Metric), v[i].T, v[i].F)
			if err := p.added(1); err != nil {
				return err
			}
		}
	case promql.Matrix:
		e.part.Head.Type = querypb.Head_MATRIX
		for i := range v {
			p.room(len(v)-i, len(labeltext.Of(v[i].Metric)), len(v[i].Floats))
			p.buf = packed.AppendPoints(packed.AppendLabels(p.buf, v[i].Metric), v[i].Floats)
			if err := p.added(len(v[i].Floats)); err != nil {
				return err
			}
		}
	}
	e.part.Packed = p.buf
	return e.to.last(e.part)
}

// packer fills parts with packed series.
type packer struct {
	*encoder
	buf []byte
}

// room makes room for a whole part before its first series, if the others of left are like that one.
func (p *packer) room(left, text, points int) {
	if p.buf == nil {
		p.buf = make([]byte, 0, min(partBytes+partBytes/16, left*(text+packed.SeriesBytes+points*packed.PointBytes)))
	}
}

// added counts a series, and sends the part if that is full.
func (p *packer) added(points int) error {
	p.part.PackedSeries++
	p.part.PackedPoints += uint32(points) //nolint:gosec // No answer has as many.
	if len(p.buf) < partBytes {
		return nil
	}
	p.part.Packed, p.buf = p.buf, nil
	return p.flush()
}

// unpack takes the packed series of a part, which share its memory.
func (r *receiver) unpack(p *querypb.Part) error {
	// What the message says of itself is no more than a hint.
	most := len(p.Packed) / leastPoint
	vector := r.head != nil && r.head.Type == querypb.Head_VECTOR
	var points []promql.FPoint
	if vector {
		r.vector = slices.Grow(r.vector, min(int(p.PackedSeries), most))
	} else {
		r.matrix = slices.Grow(r.matrix, min(int(p.PackedSeries), most))
		points = make([]promql.FPoint, 0, min(int(p.PackedPoints), most))
	}
	from := packed.Read(p.Packed)
	for {
		ls, ok := from.Next()
		if !ok {
			return from.Err()
		}
		start := len(points)
		if points, ok = from.Points(points); !ok {
			return from.Err()
		}
		own := points[start:len(points):len(points)]
		switch {
		case !vector:
			s := promql.Series{Metric: ls}
			if len(own) > 0 {
				s.Floats = own
			}
			r.matrix = append(r.matrix, s)
		case len(own) != 1:
			return errs.New(errs.Internal, "a sample of an instant answer is missing")
		default:
			r.vector = append(r.vector, promql.Sample{Metric: ls, T: own[0].T, F: own[0].F})
			points = points[:start]
		}
	}
}

// leastPoint is what a packed point takes at least.
const leastPoint = 8
