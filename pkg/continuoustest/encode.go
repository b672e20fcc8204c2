package continuoustest

import (
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

// part is a run of the series of a stream at one time: one request.
type part struct {
	stream
	at       time.Time
	from, to int // of the series, counted from 1; to is the last
}

func (p part) name() string { return metricOf(p.histograms) }

func metricOf(histograms bool) string {
	if histograms {
		return histogramMetric
	}
	return floatMetric
}

func seriesID(i int) string { return strconv.Itoa(i) }

// encode makes the body of the request.
func (p part) encode() ([]byte, error) {
	switch p.protocol {
	case protocolV1:
		return p.encodeV1()
	case protocolV2:
		return p.encodeV2()
	case protocolOTLP:
		return p.encodeOTLP()
	default:
		return nil, fmt.Errorf("unknown protocol %q", p.protocol)
	}
}

func (p part) encodeV1() ([]byte, error) {
	req := &prompb.WriteRequest{}
	for i := p.from; i <= p.to; i++ {
		ts := prompb.TimeSeries{Labels: []prompb.Label{ // in the order of names
			{Name: model.MetricNameLabel, Value: p.name()}, {Name: protocolLabel, Value: p.protocol}, {Name: seriesLabel, Value: seriesID(i)},
		}}
		if p.histograms {
			ts.Histograms = []prompb.Histogram{prompb.FromIntHistogram(p.at.UnixMilli(), cup(p.at, int64(i)))}
		} else {
			ts.Samples = []prompb.Sample{{Timestamp: p.at.UnixMilli(), Value: wave(p.at) * float64(i)}}
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	return req.Marshal()
}

// encodeV2 sends histograms of floats, so that both kinds of them are tested.
func (p part) encodeV2() ([]byte, error) {
	req, symbols := &writev2.Request{}, writev2.NewSymbolTable()
	help := symbols.Symbolize("Written by the continuous test.")
	for i := p.from; i <= p.to; i++ {
		ts := writev2.TimeSeries{
			LabelsRefs: symbols.SymbolizeLabels(labels.FromStrings(model.MetricNameLabel, p.name(), protocolLabel, p.protocol, seriesLabel, seriesID(i)), nil),
			Metadata:   writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_GAUGE, HelpRef: help},
		}
		if p.histograms {
			h := cup(p.at, int64(i)).ToFloat(nil)
			h.CounterResetHint = histogram.GaugeType
			ts.Histograms = []writev2.Histogram{writev2.FromFloatHistogram(0, p.at.UnixMilli(), h)}
		} else {
			ts.Samples = []writev2.Sample{{Timestamp: p.at.UnixMilli(), Value: wave(p.at) * float64(i)}}
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	req.Symbols = symbols.Symbols()
	return req.Marshal()
}

// encodeOTLP sends histograms as cumulative ones, as OTLP has no others that stay as they are.
func (p part) encodeOTLP() ([]byte, error) {
	all := pmetric.NewMetrics()
	m := all.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName(p.name())
	at := pcommon.NewTimestampFromTime(p.at)
	if p.histograms {
		points := m.SetEmptyExponentialHistogram()
		points.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		for i := p.from; i <= p.to; i++ {
			d := points.DataPoints().AppendEmpty()
			p.attributes(d.Attributes(), i)
			d.SetTimestamp(at)
			fill(d, cup(p.at, int64(i)))
		}
	} else {
		points := m.SetEmptyGauge()
		for i := p.from; i <= p.to; i++ {
			d := points.DataPoints().AppendEmpty()
			p.attributes(d.Attributes(), i)
			d.SetTimestamp(at)
			d.SetDoubleValue(wave(p.at) * float64(i))
		}
	}
	return pmetricotlp.NewExportRequestFromMetrics(all).MarshalProto()
}

func (p part) attributes(m pcommon.Map, i int) {
	m.PutStr(protocolLabel, p.protocol)
	m.PutStr(seriesLabel, seriesID(i))
}

// fill makes d what h is. A bucket of OTLP with the number n goes from 2^n, one of Prometheus to 2^n.
func fill(d pmetric.ExponentialHistogramDataPoint, h *histogram.Histogram) {
	d.SetCount(h.Count)
	d.SetSum(h.Sum)
	d.SetZeroCount(h.ZeroCount)
	put := func(b pmetric.ExponentialHistogramDataPointBuckets, deltas []int64) {
		b.SetOffset(-1)
		sum := int64(0)
		for _, n := range deltas {
			sum += n
			b.BucketCounts().Append(uint64(sum))
		}
	}
	put(d.Positive(), h.PositiveBuckets)
	put(d.Negative(), h.NegativeBuckets)
}
