package wal

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
)

// samplesPerRecord is the size of a usual push.
const samplesPerRecord = 2000

// sampleRecords returns records shaped like those of an ingester: per record three columns of
// about 2000 samples, zigzag-varint reference deltas, varint timestamp deltas and 8-byte floats.
// Values move between scrapes as those of real exporters do: a third never change and are mostly
// zero or one, a third are integer counters, the rest are gauges in bytes and float seconds.
func sampleRecords(n int) [][]byte {
	rng := rand.New(rand.NewPCG(7, 11))
	const series = 20 * samplesPerRecord
	values := make([]float64, series)
	for i := range values {
		switch i % 12 {
		case 0, 1, 2:
		case 3:
			values[i] = 1
		case 4, 5, 6, 7:
			values[i] = math.Floor(math.Exp(rng.Float64() * 18))
		case 8, 9:
			values[i] = math.Floor(math.Exp(rng.Float64()*8)) * 4096
		default:
			values[i] = math.Exp(rng.Float64() * 12)
		}
	}
	out := make([][]byte, n)
	for r := range out {
		first := r % 20 * samplesPerRecord
		rec := binary.AppendUvarint(nil, 1763768086000+uint64(r)*137)
		prev := int64(0)
		for i := range samplesPerRecord {
			ref := int64(first+i) * 3
			if rng.IntN(20) == 0 {
				ref += int64(rng.IntN(3))
			}
			rec = binary.AppendVarint(rec, ref-prev)
			prev = ref
		}
		for range samplesPerRecord {
			rec = binary.AppendUvarint(rec, 0)
		}
		for i := first; i < first+samplesPerRecord; i++ {
			switch i % 12 {
			case 4, 5, 6:
				values[i] += float64(rng.IntN(50))
			case 8:
				values[i] += float64(rng.IntN(64)-32) * 4096
			case 10, 11:
				values[i] += rng.Float64()
			}
			rec = binary.LittleEndian.AppendUint64(rec, math.Float64bits(values[i]))
		}
		out[r] = rec
	}
	return out
}
