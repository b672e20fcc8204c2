package remotewrite

import "slices"

// Finder looks for the label of one name in the series of a batch, without decoding the others.
type Finder struct {
	b    *Batch
	name string
	ref  uint64 // of the name, in RW 2.0
	many bool   // several symbols are the name
	none bool   // no symbol is
}

// Find returns a Finder of name, good until the batch is scanned again or released.
func (b *Batch) Find(name string) Finder {
	f := Finder{b: b, name: name}
	if b.version != V2 {
		return f
	}
	f.none = true
	for i, s := range b.symbols {
		if int(s.n) == len(name) && string(b.bytes(s)) == name {
			f.many, f.none = !f.none, false
			f.ref = uint64(i)
		}
	}
	return f
}

// Value returns the value of the label in series i, the first if there are several; nil if there is
// none or it is empty. It is valid as long as the body is. Malformed labels have no value.
func (f *Finder) Value(i int) []byte {
	p := f.b.bytes(f.b.series[i].labels)
	if f.b.version == V2 {
		return f.refValue(p)
	}
	for at := 0; at < len(p); {
		// A label as all senders write it: short, with its name first. Whether it is worth a look is
		// told by its length of one byte and its name.
		if at+4 < len(p) && p[at+1] < 0x80 && p[at+2] == 1<<3|wireBytes && p[at+3] < 0x80 {
			value, end := at+4+int(p[at+3]), at+2+int(p[at+1])
			if int(p[at+3]) != len(f.name) || value > len(p) || string(p[at+4:value]) != f.name {
				at = end
				continue
			}
			if value+1 < end && end <= len(p) && p[value] == 2<<3|wireBytes && value+2+int(p[value+1]) == end {
				return valueOf(p[value+2 : end])
			}
		}
		_, _, s := tag(p, at)
		s, e := chunk(p, max(s, 0))
		if e < 0 {
			return nil
		}
		l, ok := labelV1(p[:e], s)
		if !ok {
			return nil
		}
		if string(l.Name) == f.name {
			return valueOf(l.Value)
		}
		at = e
	}
	return nil
}

// refValue looks through pairs of references that the scan has checked.
func (f *Finder) refValue(p []byte) []byte {
	if f.none {
		return nil
	}
	for at := 0; at < len(p); {
		var n, v uint64
		n, at = uvarint(p, at)
		v, at = uvarint(p, at)
		if n == f.ref || f.many && string(f.b.symbol(uint32(n))) == f.name {
			return valueOf(f.b.symbol(uint32(v)))
		}
	}
	return nil
}

func valueOf(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

// Select replaces what b holds by the series rows of from, in that order, and, if metadata, by the
// metadata of from that belongs to no series. b refers to the body, the symbols and the buffers of
// from, which must not be scanned again before b is released.
func (b *Batch) Select(from *Batch, rows []uint32, metadata bool) {
	b.reset()
	b.version, b.body, b.Several, b.borrowed = from.version, from.body, from.Several, true
	b.extra, b.symbols, b.symHashes = from.extra, from.symbols, from.symHashes
	if metadata {
		b.metadata = append(b.metadata, from.metadata...)
	}
	if from.plain() {
		b.selectPlain(from, rows)
		return
	}
	for _, r := range rows {
		i := int(r)
		lo, hi := from.Samples(i)
		b.Times, b.Values = append(b.Times, from.Times[lo:hi]...), append(b.Values, from.Values[lo:hi]...)
		if len(from.StartTimes) > 0 {
			b.StartTimes = append(b.StartTimes, from.StartTimes[lo:hi]...)
		}
		lo, hi = from.Histograms(i)
		b.hists = append(b.hists, from.hists[lo:hi]...)
		lo, hi = from.Exemplars(i)
		b.exemplars = append(b.exemplars, from.exemplars[lo:hi]...)
		s := series{from.series[i].labels, uint32(len(b.Times)), uint32(len(b.hists)), uint32(len(b.exemplars)), 0}
		if m := from.series[i].meta; m > 0 {
			b.metas = append(b.metas, from.metas[m-1])
			s.meta = uint32(len(b.metas))
		}
		b.series, b.Hashes = append(b.series, s), append(b.Hashes, from.Hashes[i])
	}
}

// plain says whether every series of b has one float sample and nothing else, as most requests are.
func (b *Batch) plain() bool {
	return len(b.series) == len(b.Times) && !b.Several && len(b.hists)+len(b.exemplars)+len(b.metas)+len(b.StartTimes) == 0
}

// selectPlain is Select from a plain batch.
func (b *Batch) selectPlain(from *Batch, rows []uint32) {
	n := len(rows)
	b.Times, b.Values = slices.Grow(b.Times, n)[:n], slices.Grow(b.Values, n)[:n]
	b.series, b.Hashes = slices.Grow(b.series, n)[:n], slices.Grow(b.Hashes, n)[:n]
	for k, r := range rows {
		b.Times[k], b.Values[k], b.Hashes[k] = from.Times[r], from.Values[r], from.Hashes[r]
		b.series[k] = series{labels: from.series[r].labels, samplesEnd: uint32(k + 1)}
	}
}

// Without returns the hash of a series whose encoded labels have the hash h and which is stored
// without one label, of whose name label is the hash: so it is not taken for a series that is sent
// with the same labels and keeps them.
func (k *Keys) Without(h, label Hash) Hash { return k.mix(h, label) }

// Name hashes the name of a label for Without.
func (k *Keys) Name(name string) Hash { return k.bytes([]byte(name)) }
