package block

import (
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
)

const (
	// mostAlterations bounds those of a bucket index; of more, the oldest become one.
	mostAlterations = 1000
	// anyTime is later than every sample, and far enough from what a number holds to be added to.
	anyTime = 1 << 60
)

// Alteration says that what queries find at mint <= t < maxt became another at a time, because an
// operator hid blocks, brought them back or removed them, or because somebody uploaded a block that is
// listed no more. Compaction and retention are none: they change no answer that a tenant may see.
type Alteration struct {
	MinTime int64 `json:"min_time"`
	MaxTime int64 `json:"max_time"`
	At      int64 `json:"at"` // seconds
}

// Alter notes that block id was hidden from queries, or was brought back.
func (i *BucketIndex) Alter(id ulid.ULID, now time.Time) {
	for _, b := range i.Blocks {
		if b.ID == id {
			i.alter(b, now)
		}
	}
}

func (i *BucketIndex) alter(b IndexedBlock, now time.Time) {
	i.Altered = append(i.Altered, Alteration{MinTime: b.MinTime, MaxTime: b.MaxTime, At: now.Unix()})
	if len(i.Altered) <= mostAlterations {
		return
	}
	// What is joined claims more than was altered, never less.
	a, c := i.Altered[0], i.Altered[1]
	i.Altered[1] = Alteration{MinTime: min(a.MinTime, c.MinTime), MaxTime: max(a.MaxTime, c.MaxTime), At: max(a.At, c.At)}
	i.Altered = slices.Delete(i.Altered, 0, 1)
}

// NoteAlterations takes over what the index old knows of alterations, but for those older than keep,
// and notes what operators did to the bucket since. It is called before s.Index is changed. old is nil
// if the index was lost: then everything may have been altered.
func (s *Scan) NoteAlterations(old *BucketIndex, keep time.Duration) {
	now := time.Unix(s.Index.UpdatedAt, 0)
	if old == nil {
		s.Index.Altered = []Alteration{{MinTime: -anyTime, MaxTime: anyTime, At: now.Unix()}}
		return
	}
	for _, a := range old.Altered {
		if a.At >= now.Add(-keep).Unix() {
			s.Index.Altered = append(s.Index.Altered, a)
		}
	}
	was, is, there := marksOf(old), marksOf(s.Index), make(map[ulid.ULID]bool, len(s.Index.Blocks))
	for _, b := range s.Index.Blocks {
		there[b.ID] = true
	}
	for _, b := range old.Blocks {
		if !there[b.ID] && b.Source != source && b.UploadedAt >= now.Add(-keep).Unix() {
			// Its samples are in a block now that does not tell that they came late.
			s.Index.alter(b, time.Unix(b.UploadedAt, 0))
		}
		switch hidden := is[b.ID] || !there[b.ID]; {
		case was[b.ID] == hidden:
		case hidden && s.obsolete[b.ID]:
		default:
			s.Index.alter(b, now)
		}
	}
}

func marksOf(i *BucketIndex) map[ulid.ULID]bool {
	out := make(map[ulid.ULID]bool, len(i.DeletionMarks))
	for _, m := range i.DeletionMarks {
		out[m.ID] = true
	}
	return out
}
