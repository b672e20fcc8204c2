package remotewrite

// The fields of prometheus.WriteRequest and prometheus.TimeSeries.
const (
	v1Series         = 1
	v1Metadata       = 3
	v1SeriesLabel    = 1
	v1SeriesSample   = 2
	v1SeriesExemplar = 3
	v1SeriesHist     = 4
)

// The fields of io.prometheus.write.v2.Request and TimeSeries.
const (
	v2Reserved       = 3 // fields up to it are version 1.0's
	v2Symbol         = 4
	v2Series         = 5
	v2SeriesRefs     = 1
	v2SeriesSample   = 2
	v2SeriesHist     = 3
	v2SeriesExemplar = 4
	v2SeriesMetadata = 5
)

// Tags as nearly every sender writes them: one byte, field<<3 | wire type.
const (
	tagV1Label = v1SeriesLabel<<3 | wireBytes
	tagSample  = v1SeriesSample<<3 | wireBytes // the same in both versions
	tagValue   = 1<<3 | wireFixed64
	tagTime    = 2<<3 | wireVarint
)

func (b *Batch) scanV1(k *Keys) error {
	for i := 0; i < len(b.body); {
		field, wire, p := tag(b.body, i)
		if p < 0 {
			return malformed("field tag", i)
		}
		if field != v1Series && field != v1Metadata {
			if p = skip(b.body, p, wire); p < 0 {
				return malformed("unknown field", i)
			}
			i = p
			continue
		}
		start, end := chunk(b.body, p)
		if wire != wireBytes || end < 0 {
			return malformed("time series or metadata", i)
		}
		if field == v1Series {
			if err := b.seriesV1(k, start, end); err != nil {
				return err
			}
		} else {
			b.metadata = append(b.metadata, span{uint32(start), uint32(end - start)})
			if err := b.room(); err != nil {
				return err
			}
		}
		i = end
	}
	return nil
}

// seriesV1 scans one prometheus.TimeSeries. Senders write the labels first, which makes them one
// range of the body; labels that come later are copied together.
func (b *Batch) seriesV1(k *Keys, start, end int) error {
	ts := b.body[:end]
	i := start
	for i < end && ts[i] == tagV1Label {
		e := 0
		if i+1 < end && ts[i+1] < 0x80 {
			if e = i + 2 + int(ts[i+1]); e > end {
				e = -1
			}
		} else {
			_, e = chunk(ts, i+1)
		}
		if e < 0 {
			return malformed("label", i)
		}
		i = e
	}
	labels := span{uint32(start), uint32(i - start)}
	for i < end {
		at := i
		field, wire, p := tag(ts, i)
		if p < 0 {
			return malformed("field tag of a time series", at)
		}
		if field > v1SeriesHist {
			if i = skip(ts, p, wire); i < 0 {
				return malformed("unknown field of a time series", at)
			}
			continue
		}
		s, e := chunk(ts, p)
		if wire != wireBytes || e < 0 {
			return malformed("field of a time series", at)
		}
		i = e
		switch field {
		case v1SeriesSample:
			v, t, _, ok := sample(ts[:e], s, false)
			if !ok {
				return malformed("sample", at)
			}
			b.addSample(v, t, 0)
		case v1SeriesHist:
			b.hists = append(b.hists, span{uint32(s), uint32(e - s)})
		case v1SeriesExemplar:
			b.exemplars = append(b.exemplars, span{uint32(s), uint32(e - s)})
		case v1SeriesLabel:
			labels = b.moreLabels(labels, ts[at:e])
		}
		if err := b.room(); err != nil {
			return err
		}
	}
	return b.endSeries(k.bytes(b.bytes(labels)), labels, 0)
}

// moreLabels returns a copy of labels with more behind it. Only the labels of the series being
// scanned grow, and they are at the end of the buffer.
func (b *Batch) moreLabels(labels span, more []byte) span {
	if labels.n == 0 || labels.n&inExtra == 0 {
		off := len(b.extra)
		b.extra = append(b.extra, b.bytes(labels)...)
		labels = span{uint32(off), labels.n | inExtra}
	}
	b.extra = append(b.extra, more...)
	labels.n += uint32(len(more))
	return labels
}

// sample reads a Sample message at b[i:]; hasStart says whether field 3 is the start time of
// version 2.0 or an unknown field.
func sample(b []byte, i int, hasStart bool) (v float64, t, start int64, ok bool) {
	if len(b)-i > 10 && b[i] == tagValue && b[i+9] == tagTime {
		v, _ = double(b, i+1)
		u, p := uvarint(b, i+10)
		if p == len(b) {
			return v, int64(u), 0, true
		}
	}
	v = 0
	for i < len(b) {
		field, wire, p := tag(b, i)
		if p < 0 {
			return 0, 0, 0, false
		}
		var u uint64
		switch {
		case field == 1:
			if wire != wireFixed64 {
				return 0, 0, 0, false
			}
			v, i = double(b, p)
		case field == 2, field == 3 && hasStart:
			if wire != wireVarint {
				return 0, 0, 0, false
			}
			u, i = uvarint(b, p)
			if field == 2 {
				t = int64(u)
			} else {
				start = int64(u)
			}
		default:
			i = skip(b, p, wire)
		}
		if i < 0 {
			return 0, 0, 0, false
		}
	}
	return v, t, start, true
}
