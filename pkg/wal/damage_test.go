package wal

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// threeSegments returns a closed log of three segments with five one-record blocks each.
func threeSegments(t *testing.T) (*memDisk, []string) {
	t.Helper()
	d := newMemDisk()
	r, _, _ := replayed(t, d)
	recs := numbered(0, 15)
	for i := range 3 {
		r.put(t, recs[i*5:i*5+5]...)
		r.cutNow(t)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return d.clone(), recs
}

// offsets returns where each block of a file begins, and its end.
func offsets(t *testing.T, f *memFile) []int64 {
	t.Helper()
	s := newScanner(f, int64(len(f.data)))
	var out []int64
	for {
		b, g, err := s.next()
		if g != nil {
			t.Fatalf("damage at %d: %v", g.off, g.cause)
		}
		if errors.Is(err, io.EOF) {
			return append(out, s.off)
		}
		out = append(out, b.off)
	}
}

func without(recs []string, lost ...int) []string {
	var out []string
	for i, r := range recs {
		if !slices.Contains(lost, i) {
			out = append(out, r)
		}
	}
	return out
}

func zero(b []byte) {
	for i := range b {
		b[i] = 0
	}
}

func TestDamageInTheMiddleLosesOnlyItself(t *testing.T) {
	for _, c := range []struct {
		name    string
		segment string
		damage  func(data []byte, at []int64)
		lost    []int
	}{
		{"bit flip in a payload", "00000001", func(b []byte, at []int64) { b[at[2]+blockHeaderBytes] ^= 4 }, []int{7}},
		{"bit flip in a length", "00000001", func(b []byte, at []int64) { b[at[2]+16] ^= 1 }, []int{7}},
		{"huge length", "00000001", func(b []byte, at []int64) { copy(b[at[2]+16:], "\xff\xff\xff\xff\xff\xff\xff\xff") }, []int{7}},
		{"bit flip in the magic", "00000001", func(b []byte, at []int64) { b[at[2]] ^= 1 }, []int{7}},
		{"zeroed blocks", "00000001", func(b []byte, at []int64) { zero(b[at[1]+3 : at[3]-2]) }, []int{6, 7}},
		{"first block of the log", "00000000", func(b []byte, at []int64) { b[at[0]+20] ^= 1 }, []int{0}},
		{"last block of a segment", "00000000", func(b []byte, at []int64) { zero(b[at[4]:]) }, []int{4}},
		{"file header", "00000001", func(b []byte, _ []int64) { zero(b[:fileHeaderBytes]) }, nil},
		{"file header and first block", "00000001", func(b []byte, at []int64) { zero(b[:at[1]]) }, []int{5}},
		{"whole file", "00000001", func(b []byte, _ []int64) { zero(b) }, []int{5, 6, 7, 8, 9}},
		{"block of the last segment", "00000002", func(b []byte, at []int64) { b[at[1]+blockHeaderBytes] ^= 1 }, []int{11}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, recs := threeSegments(t)
			f := d.files[c.segment]
			c.damage(f.data, offsets(t, f))
			r, got, stats := replayed(t, d)
			equal(t, "replay", got, without(recs, c.lost...))
			if stats.Corruptions != 1 || stats.Damages[0].Blocks != int64(len(c.lost)) || stats.Damages[0].Bytes == 0 || stats.Damages[0].File != c.segment {
				t.Errorf("stats %+v, want one damage in %s of %d blocks", stats, c.segment, len(c.lost))
			}
			if r.metric(t, "wal_corruptions_total") != 1 || !strings.Contains(r.logs.String(), "file="+c.segment) || !strings.Contains(r.logs.String(), "offset=") {
				t.Errorf("corruptions %v, logs %s", r.metric(t, "wal_corruptions_total"), r.logs)
			}
			r.put(t, "more")
			_, got, _ = replayed(t, d.clone())
			equal(t, "second replay", got, append(without(recs, c.lost...), "more"))
		})
	}
}

func TestATornTailIsCut(t *testing.T) {
	d, recs := threeSegments(t)
	at := offsets(t, d.files["00000002"])
	for size := at[4]; size < at[5]; size += 3 {
		for _, fill := range []int{0, 5, 4096} {
			torn := d.clone()
			f := torn.files["00000002"]
			f.data = append(f.data[:size:size], make([]byte, fill)...)
			if int64(len(f.data)) == at[4] {
				continue // nothing is torn
			}
			r, got, stats := replayed(t, torn)
			equal(t, "replay", got, recs[:14])
			if stats.Corruptions != 0 || stats.TornBytes != size-at[4]+int64(fill) || r.metric(t, "wal_torn_tails_total") != 1 || int64(len(f.data)) != at[4] {
				t.Fatalf("size %d: %+v, file has %d bytes, want %d", size, stats, len(f.data), at[4])
			}
			r.put(t, "more")
			_, got, stats = replayed(t, torn.clone())
			equal(t, "second replay", got, append(recs[:14:14], "more"))
			if stats.Corruptions != 0 {
				t.Fatalf("second replay: %+v", stats)
			}
		}
	}
}

func TestEmptyAndZeroFilledFilesAreTolerated(t *testing.T) {
	for _, size := range []int{0, 1, fileHeaderBytes, 5000} {
		d, recs := threeSegments(t)
		d.files["00000003"] = &memFile{disk: d, name: "00000003", data: make([]byte, size)}
		r, got, stats := replayed(t, d)
		equal(t, "replay", got, recs)
		if stats.Corruptions != 0 {
			t.Errorf("%d bytes: %+v", size, stats)
		}
		if n := r.put(t, "more"); n != 3 {
			t.Errorf("written to segment %d, want 3", n)
		}
	}
}

func TestMissingSegmentsAreReported(t *testing.T) {
	d, recs := threeSegments(t)
	delete(d.files, "00000001")
	_, got, stats := replayed(t, d)
	equal(t, "replay", got, without(recs, 5, 6, 7, 8, 9))
	if stats.MissingSegments != 1 || stats.Corruptions != 1 || stats.Damages[0].Blocks != 5 || stats.Damages[0].Segment != 1 {
		t.Errorf("stats %+v", stats)
	}
	d, recs = threeSegments(t)
	delete(d.files, "00000000")
	_, got, stats = replayed(t, d)
	equal(t, "replay", got, recs[5:])
	if stats.MissingSegments != 1 || stats.Corruptions != 1 {
		t.Errorf("first segment missing: %+v", stats)
	}
}

func TestASegmentCutAtABlockIsReported(t *testing.T) {
	d, recs := threeSegments(t)
	f := d.files["00000001"]
	f.data = f.data[:offsets(t, f)[3]]
	_, got, stats := replayed(t, d)
	equal(t, "replay", got, without(recs, 8, 9))
	if stats.Corruptions != 1 || stats.Damages[0].Blocks != 2 {
		t.Errorf("stats %+v", stats)
	}
}

func TestARecordCannotPoseAsABlock(t *testing.T) {
	d := newMemDisk()
	r, _, _ := replayed(t, d)
	noise := incompressible(3000)
	forged := appendBlock(nil, appendRecord(nil, noise[:500]), blockHeader{salt: 12345, seq: 1})
	r.put(t, "a", string(noise[500:])+string(forged), "c")
	r.Close()
	f := d.files["00000000"]
	if !bytes.Contains(f.data, forged) {
		t.Fatal("the forged block is not on disk as it was sent")
	}
	f.data[offsets(t, f)[1]] ^= 1 // the true header, so that its payload is searched
	_, got, _ := replayed(t, d.clone())
	equal(t, "replay", got, []string{"a", "c"})
}

func TestUnreadableSectorsLoseOnlyThemselvesAndAreNotCutOff(t *testing.T) {
	d, recs := threeSegments(t)
	sizes := map[string]int{}
	for name, f := range d.files {
		sizes[name] = len(f.data)
	}
	for _, name := range []string{"00000001", "00000002"} {
		d.setFault(func(op, n string) error {
			if op == "read" && n == name {
				return syscall.EIO
			}
			return nil
		})
		damaged := d.clone()
		damaged.fault = d.fault
		r, got, stats := replayed(t, damaged)
		want := without(recs, 5, 6, 7, 8, 9)
		if name == "00000002" {
			want = recs[:10]
		}
		equal(t, name, got, want)
		if stats.Corruptions == 0 || len(damaged.files[name].data) != sizes[name] {
			t.Errorf("%s: %+v, %d bytes", name, stats, len(damaged.files[name].data))
		}
		damaged.setFault(nil)
		r.put(t, "more")
		_, got, _ = replayed(t, damaged.clone())
		equal(t, name+" when the disk reads again", got, append(recs[:15:15], "more"))
	}
}

func TestReplayEndsWithItsCallersErrorAndCanBeTriedAgain(t *testing.T) {
	d, recs := threeSegments(t)
	r := openOn(t, d, t.TempDir(), true)
	n := 0
	_, err := r.Replay(t.Context(), func(int, []byte) error {
		if n++; n == 7 {
			return errs.New(errs.TooLarge, "enough")
		}
		return nil
	})
	if errs.KindOf(err) != errs.TooLarge || n != 7 {
		t.Errorf("replay: %v after %d records", err, n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = r.Replay(ctx, func(int, []byte) error { cancel(); return nil })
	if errs.KindOf(err) != errs.Canceled {
		t.Errorf("canceled replay: %v", err)
	}
	failing(d, syscall.EIO, "open")
	if _, err = r.Replay(t.Context(), nil); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("replay of a dead disk: %v", err)
	}
	d.setFault(nil)
	got, _ := r.replay(t)
	equal(t, "replay", got, recs)
}

// TestAnyDamageLeavesTheRest flips, zeroes and cuts at random: what is replayed must be a
// subsequence of what was written, the other segments must be whole, and the log must go on.
func TestAnyDamageLeavesTheRest(t *testing.T) {
	whole, recs := threeSegments(t)
	for seed := range uint64(150) {
		rng := rand.New(rand.NewPCG(seed, 0))
		d := whole.clone()
		f := d.files["00000001"]
		for range 1 + rng.IntN(4) {
			from := rng.IntN(len(f.data))
			end := min(len(f.data), from+1+rng.IntN(200))
			switch rng.IntN(3) {
			case 0:
				f.data[from] ^= 1 << rng.IntN(8)
			case 1:
				zero(f.data[from:end])
			default:
				f.data = slices.Delete(f.data, from, min(end, len(f.data)-1))
			}
		}
		r, got, stats := replayed(t, d)
		if !slices.Equal(got[:5], recs[:5]) || !slices.Equal(got[len(got)-5:], recs[10:]) || !subsequence(got, recs) {
			t.Fatalf("seed %d: replayed %q", seed, got)
		}
		if len(got) < 15 && stats.Corruptions == 0 {
			t.Fatalf("seed %d: %d records lost in silence", seed, 15-len(got))
		}
		r.put(t, "more")
	}
}

func subsequence(got, want []string) bool {
	for _, w := range want {
		if len(got) > 0 && got[0] == w {
			got = got[1:]
		}
	}
	return len(got) == 0
}
