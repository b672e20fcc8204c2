package ha

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Codec writes a State for the store: a byte with the version, then for each cluster the number of
// bytes that follow for it, tenant, cluster and replica, each with its length, and term and times
// as varints. What follows in a cluster is left to later versions.
type Codec struct{}

const (
	codecVersion = 1

	// maxStateBytes bounds what is decoded; a member of the cluster may be of another mind.
	maxStateBytes = 64 << 20
)

var errTruncated = errors.New("elections are cut short")

// CodecID is part of codec.Codec.
func (Codec) CodecID() string { return "amphoraElections" }

// Encode is part of codec.Codec.
func (Codec) Encode(v any) ([]byte, error) {
	s, ok := v.(*State)
	if !ok {
		return nil, fmt.Errorf("%T is no state of elections", v)
	}
	out := []byte{codecVersion}
	var row []byte
	for _, k := range s.keys() {
		e := s.elections[k]
		row = row[:0]
		for _, text := range []string{string(k.tenant), k.cluster, e.replica} {
			row = append(binary.AppendUvarint(row, uint64(len(text))), text...)
		}
		row = binary.AppendUvarint(row, e.term)
		row = binary.AppendVarint(row, e.electedAt)
		row = binary.AppendVarint(row, e.receivedAt)
		out = append(binary.AppendUvarint(out, uint64(len(row))), row...)
	}
	return out, nil
}

// Decode is part of codec.Codec.
func (Codec) Decode(b []byte) (any, error) {
	switch {
	case len(b) == 0:
		return nil, errTruncated
	case len(b) > maxStateBytes:
		return nil, fmt.Errorf("elections have %d bytes, at most %d are read", len(b), maxStateBytes)
	case b[0] != codecVersion:
		return nil, fmt.Errorf("elections have the unknown version %d", b[0])
	}
	s := newState()
	r := reader{rest: b[1:]}
	for len(r.rest) > 0 && !r.bad {
		row := reader{rest: r.bytes()}
		if r.bad {
			break
		}
		k := clusterKey{tenant.ID(row.bytes()), string(row.bytes())}
		e := election{replica: string(row.bytes()), term: row.uvarint(), electedAt: row.varint(), receivedAt: row.varint()}
		if r.bad = row.bad; r.bad {
			break
		}
		if _, err := tenant.Parse(string(k.tenant)); err != nil {
			return nil, fmt.Errorf("elections name a tenant: %w", err)
		}
		if !e.sane() {
			return nil, errors.New("elections have a term or time out of range")
		}
		s.elections[k] = s.elections[k].join(e)
	}
	if r.bad {
		return nil, errTruncated
	}
	return s, nil
}

// MarshalJSON is for the page of gossip.
func (s *State) MarshalJSON() ([]byte, error) {
	type row struct {
		Tenant     tenant.ID `json:"tenant"`
		Cluster    string    `json:"cluster"`
		Replica    string    `json:"replica"` // empty: the cluster is deleted
		Election   uint64    `json:"election"`
		ElectedAt  time.Time `json:"elected_at"`
		ReceivedAt time.Time `json:"received_at"`
	}
	rows := make([]row, 0, len(s.elections))
	for _, k := range s.keys() {
		e := s.elections[k]
		rows = append(rows, row{k.tenant, k.cluster, e.replica, e.term, clockTime(e.electedAt), clockTime(e.receivedAt)})
	}
	return json.Marshal(rows)
}

// clockTime returns ms as a time that has a form in JSON, which ends with the year 9999.
func clockTime(ms int64) time.Time {
	const last = 253_402_300_799_999
	return time.UnixMilli(min(max(ms, 0), last)).UTC()
}

// reader reads numbers and text until something does not fit.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) uvarint() uint64 {
	x, n := binary.Uvarint(r.rest)
	if n <= 0 || r.bad {
		r.bad = true
		return 0
	}
	r.rest = r.rest[n:]
	return x
}

func (r *reader) varint() int64 {
	x, n := binary.Varint(r.rest)
	if n <= 0 || r.bad {
		r.bad = true
		return 0
	}
	r.rest = r.rest[n:]
	return x
}

func (r *reader) bytes() []byte {
	n := r.uvarint()
	if r.bad || n > uint64(len(r.rest)) {
		r.bad = true
		return nil
	}
	out := r.rest[:n]
	r.rest = r.rest[n:]
	return out
}
