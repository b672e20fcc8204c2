package wal

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
)

func benchLog(b *testing.B, dir string, sync bool) *Log {
	b.Helper()
	l, err := Open(dir, Options{Config: Config{Sync: sync}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	if _, err := l.Replay(b.Context(), func(int, []byte) error { return nil }); err != nil {
		b.Fatal(err)
	}
	return l
}

// BenchmarkAppend appends records of 2000 samples from many goroutines, each of which waits for its
// record as a push does.
func BenchmarkAppend(b *testing.B) {
	recs := sampleRecords(400)
	for _, sync := range []bool{false, true} {
		b.Run(fmt.Sprintf("sync=%t/samples=2000", sync), func(b *testing.B) {
			l := benchLog(b, b.TempDir(), sync)
			var next atomic.Int64
			b.ReportAllocs()
			b.SetBytes(int64(len(recs[0])))
			b.SetParallelism(32)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() { // no record twice in a batch, which would compress away
					if _, err := l.Append(recs[int(next.Add(1))%len(recs)]).Wait(b.Context()); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.StopTimer()
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*samplesPerRecord), "ns/sample")
			b.ReportMetric(float64(l.Bytes())/float64(b.N*samplesPerRecord), "B/sample")
		})
	}
}

// BenchmarkReplay replays a log of 800 records of 2000 samples.
func BenchmarkReplay(b *testing.B) {
	dir := b.TempDir()
	l := benchLog(b, dir, false)
	recs := sampleRecords(40)
	const records = 800
	var bytes int64
	for i := range records {
		bytes += int64(len(recs[i%len(recs)]))
		if _, err := l.Append(recs[i%len(recs)]).Wait(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(bytes)
	for b.Loop() {
		if err := benchLog(b, dir, false).Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*records*samplesPerRecord), "ns/sample")
}

// BenchmarkCodec compares what a block could be compressed with.
func BenchmarkCodec(b *testing.B) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		b.Fatal(err)
	}
	for _, records := range []int{1, 40} {
		var raw []byte
		for _, rec := range sampleRecords(records) {
			raw = appendRecord(raw, rec)
		}
		dst := make([]byte, s2.MaxEncodedLen(len(raw)))
		for name, encode := range map[string]func() []byte{
			"s2":       func() []byte { return s2.Encode(dst, raw) },
			"s2better": func() []byte { return s2.EncodeBetter(dst, raw) },
			"snappy":   func() []byte { return snappy.Encode(dst, raw) },
			"zstd":     func() []byte { return enc.EncodeAll(raw, dst[:0]) },
		} {
			b.Run(fmt.Sprintf("%s/records=%d", name, records), func(b *testing.B) {
				n := 0
				b.ReportAllocs()
				b.SetBytes(int64(len(raw)))
				for b.Loop() {
					n = len(encode())
				}
				b.ReportMetric(float64(n)/float64(records*samplesPerRecord), "B/sample")
			})
		}
	}
}
