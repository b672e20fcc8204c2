package otlp

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

// What Place says instead of a peer.
const (
	Here   = -1 // this process adds the series up
	Nobody = -2 // for now nobody may
)

// Place says which peer, from zero on, adds up the series of delta temporality with that hash, or Here, or
// Nobody. epoch is when whoever that is may have become it: what was added up before an epoch that is
// higher counts no more.
type Place func(hash uint64) (peer int, epoch int64)

// parts are the requests being made of the points that peers add up. Each level of a message is known
// when the one below it was read.
type parts struct {
	list   []part // by peer
	points int
	room   remotewrite.Room
	digest xxhash.Digest
	epoch  int64 // of the series of the point being read
	failed error // of the room
}

type part struct {
	points  []byte // as fields of the data of the metric being read
	metrics []byte // as fields of the scope being read
	scopes  []byte // as fields of the resource being read
	body    []byte
}

// partCopies is how often a point is copied on its way into the body of a part.
const partCopies = 4

// owned says whether the point b of m, whose labels are known, is added up here. If a peer does that, b
// becomes part of what is handed to it.
func (t *Translator) owned(m *metric, b []byte) bool {
	p := &t.parts
	p.epoch = 0
	if t.set.Place == nil {
		return true
	}
	p.digest.Reset()
	for _, s := range [...]string{t.set.Tenant, m.family, string(rune(m.data))} {
		p.write(s)
	}
	for i := range t.merged {
		p.write(t.merged[i].name)
		p.write(t.merged[i].value)
	}
	peer, epoch := t.set.Place(p.digest.Sum64())
	switch {
	case peer == Here:
		p.epoch = epoch
		return true
	case peer < 0 || t.set.Handed:
		t.res.Unplaced++
		return false
	}
	for len(p.list) <= peer {
		p.list = append(p.list, part{})
	}
	to := &p.list[peer]
	to.points = appendField(to.points, 1, b)
	p.points++
	t.res.PartPoints++
	return false
}

func (p *parts) write(s string) {
	_, _ = p.digest.WriteString(s)
	_, _ = p.digest.WriteString("\xff")
}

// endMetric closes the metric being read in all parts that have points of it.
func (t *Translator) endMetric(m *metric) {
	p := &t.parts
	if p.points == 0 {
		return
	}
	p.points = 0
	for i := range p.list {
		to := &p.list[i]
		if len(to.points) == 0 {
			continue
		}
		size := len(to.points) + len(m.name) + len(m.help) + len(m.unit) + 8*maxFieldHead
		if p.failed == nil {
			p.failed = p.room.Reserve(partCopies * size)
		}
		if m.data == dataSum {
			to.points = binary.AppendUvarint(append(to.points, 3<<3|wireVarint), 1) // only sums that never fall are added up
		}
		to.points = binary.AppendUvarint(append(to.points, 2<<3|wireVarint), temporalityDelta)
		msg := make([]byte, 0, size)
		msg = appendField(msg, 1, []byte(m.name))
		msg = appendField(msg, 2, []byte(m.help))
		msg = appendField(msg, 3, []byte(m.unit))
		msg = appendField(msg, m.data, to.points)
		to.points, to.metrics = to.points[:0], appendField(to.metrics, 2, msg)
	}
}

// endScope closes the scope being read in all parts that have metrics of it.
func (t *Translator) endScope(scope []byte, schema string) {
	p := &t.parts
	for i := range p.list {
		to := &p.list[i]
		if len(to.metrics) == 0 {
			continue
		}
		if p.failed == nil {
			p.failed = p.room.Reserve(partCopies * (len(scope) + len(schema) + 3*maxFieldHead))
		}
		to.metrics = appendField(to.metrics, 1, scope)
		to.metrics = appendField(to.metrics, 3, []byte(schema))
		to.scopes, to.metrics = appendField(to.scopes, 2, to.metrics), to.metrics[:0]
	}
}

// endResource closes the resource being read in all parts that have scopes of it.
func (t *Translator) endResource() {
	p := &t.parts
	for i := range p.list {
		to := &p.list[i]
		if len(to.scopes) == 0 {
			continue
		}
		if p.failed == nil {
			p.failed = p.room.Reserve(partCopies * (len(t.resource.raw) + 2*maxFieldHead))
		}
		to.scopes = appendField(to.scopes, 1, t.resource.raw)
		to.body, to.scopes = appendField(to.body, 1, to.scopes), to.scopes[:0]
	}
}

// take returns the bodies by peer, nil for those who get nothing, and forgets them.
func (p *parts) take() (bodies [][]byte) {
	for i := range p.list {
		bodies = append(bodies, p.list[i].body)
	}
	p.list, p.points, p.room, p.failed = nil, 0, nil, nil
	return bodies
}

// maxFieldHead is the most that the tag and the length of a field take here.
const maxFieldHead = 1 + binary.MaxVarintLen64

// appendField appends a field with a length.
func appendField(dst []byte, number uint32, data []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(number)<<3|wireBytes)
	dst = binary.AppendUvarint(dst, uint64(len(data)))
	return append(dst, data...)
}
