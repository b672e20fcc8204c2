package remotewrite

import (
	"math"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// scanV2 first collects the symbols, wherever they stand, and then scans the series.
func (b *Batch) scanV2(k *Keys) error {
	for i := 0; i < len(b.body); {
		field, wire, p := tag(b.body, i)
		if p < 0 {
			return malformed("field tag", i)
		}
		if field >= 1 && field <= v2Reserved {
			// Answered 2xx, the samples of such a body would be lost without a word.
			return errs.New(errs.Invalid, "remote write 2.0 body has field %d of remote write 1.0: the body is of version 1.0; send it with the content type application/x-protobuf;proto=prometheus.WriteRequest", field)
		}
		if field != v2Symbol && field != v2Series {
			if p = skip(b.body, p, wire); p < 0 {
				return malformed("unknown field", i)
			}
			i = p
			continue
		}
		start, end := chunk(b.body, p)
		if wire != wireBytes || end < 0 {
			return malformed("symbol or time series", i)
		}
		s := span{uint32(start), uint32(end - start)}
		if field == v2Symbol {
			b.symbols = append(b.symbols, s)
			b.symHashes = append(b.symHashes, k.bytes(b.body[start:end]))
		} else {
			b.rows = append(b.rows, s)
		}
		if err := b.room(); err != nil {
			return err
		}
		i = end
	}
	if len(b.symbols) > 0 && b.symbols[0].n != 0 || len(b.symbols) == 0 && len(b.rows) > 0 {
		return malformed("symbols do not start with the empty string: symbol 0", 0)
	}
	for _, r := range b.rows {
		if err := b.seriesV2(k, int(r.off), int(r.off+r.n)); err != nil {
			return err
		}
	}
	return nil
}

// rowV2 is the state of scanning one series.
type rowV2 struct {
	labels span
	hash   Hash
	name   Hash // of the label whose value comes next, if refs is odd
	refs   int
	meta   seriesMeta
}

// seriesV2 scans one TimeSeries of version 2.0.
func (b *Batch) seriesV2(k *Keys, start, end int) error {
	ts := b.body[:end]
	row := rowV2{hash: k.start}
	for i := start; i < end; {
		at := i
		field, wire, p := tag(ts, i)
		if p < 0 {
			return malformed("field tag of a time series", at)
		}
		if field > v2SeriesMetadata {
			if i = skip(ts, p, wire); i < 0 {
				return malformed("unknown field of a time series", at)
			}
			continue
		}
		if field == v2SeriesRefs && wire == wireVarint {
			_, e := uvarint(ts, p)
			if e < 0 || !b.labelRefs(k, &row, ts[:e], p) {
				return malformed("label reference", at)
			}
			i = e
			continue
		}
		s, e := chunk(ts, p)
		if wire != wireBytes || e < 0 {
			return malformed("field of a time series", at)
		}
		i = e
		ok := true
		switch field {
		case v2SeriesRefs:
			ok = b.labelRefs(k, &row, ts[:e], s)
		case v2SeriesSample:
			var v float64
			var t, st int64
			if v, t, st, ok = sample(ts[:e], s, true); ok {
				b.addSample(v, t, st)
			}
		case v2SeriesHist:
			b.hists = append(b.hists, span{uint32(s), uint32(e - s)})
		case v2SeriesExemplar:
			b.exemplars = append(b.exemplars, span{uint32(s), uint32(e - s)})
		case v2SeriesMetadata:
			ok = b.metaV2(&row, ts[:e], s)
		}
		if !ok {
			return malformed(partsV2[field], at)
		}
		if err := b.room(); err != nil {
			return err
		}
	}
	if row.refs%2 != 0 {
		return malformed("odd number of label references in the time series", start)
	}
	return b.endSeries(row.hash, row.labels, b.endMeta(k, &row))
}

// partsV2 names the fields of a time series in errors.
var partsV2 = [...]string{v2SeriesRefs: "label reference", v2SeriesSample: "sample", v2SeriesHist: "histogram",
	v2SeriesExemplar: "exemplar", v2SeriesMetadata: "metadata"}

// labelRefs adds the references in p[i:] to the labels of row.
func (b *Batch) labelRefs(k *Keys, row *rowV2, p []byte, i int) bool {
	from := i
	h, name, refs, hashes := row.hash, row.name, row.refs, b.symHashes
	for i < len(p) {
		// References of one and two bytes are nearly all; a call for each would cost a third of
		// the scan.
		ref := uint64(p[i])
		switch {
		case ref < 0x80:
			i++
		case i+1 < len(p) && p[i+1] < 0x80:
			ref = ref&0x7f | uint64(p[i+1])<<7
			i += 2
		default:
			if ref, i = uvarint(p, i); i < 0 {
				return false
			}
		}
		if ref >= uint64(len(hashes)) {
			return false
		}
		if refs&1 == 0 {
			name = hashes[ref]
		} else {
			h = k.mix(h, k.pair(name, hashes[ref]))
		}
		refs++
	}
	row.hash, row.name, row.refs = h, name, refs
	if row.labels.n == 0 {
		row.labels = span{uint32(from), uint32(len(p) - from)}
	} else {
		row.labels = b.moreLabels(row.labels, p[from:])
	}
	return true
}

// metaV2 reads a Metadata message of version 2.0; what several messages say adds up.
func (b *Batch) metaV2(row *rowV2, p []byte, i int) bool {
	for i < len(p) {
		field, wire, at := tag(p, i)
		if at < 0 {
			return false
		}
		if field != 1 && field != 3 && field != 4 {
			if i = skip(p, at, wire); i < 0 {
				return false
			}
			continue
		}
		var v uint64
		if v, i = uvarint(p, at); wire != wireVarint || i < 0 || v > math.MaxInt32 {
			return false
		}
		if field == 1 {
			row.meta.kind = metricType(v)
			continue
		}
		if v >= uint64(len(b.symbols)) {
			return false
		}
		if field == 3 {
			row.meta.help = uint32(v)
		} else {
			row.meta.unit = uint32(v)
		}
	}
	return true
}

// endMeta keeps the metadata of row if it says anything and returns its position plus one.
func (b *Batch) endMeta(k *Keys, row *rowV2) uint32 {
	m := row.meta
	if m.kind == 0 && b.symbols[m.help].n == 0 && b.symbols[m.unit].n == 0 {
		return 0
	}
	m.hash = k.metadata(m.kind, b.symHashes[m.help], b.symHashes[m.unit])
	b.metas = append(b.metas, m)
	return uint32(len(b.metas))
}

// symbol returns the symbol ref, which is in range.
func (b *Batch) symbol(ref uint32) []byte { return b.bytes(b.symbols[ref]) }
