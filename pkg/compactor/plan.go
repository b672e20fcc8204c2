package compactor

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/amphora-metrics/amphora/pkg/block"
)

// Stage is what a job does.
type Stage string

// The stages. Blocks of ingesters are split by series into the tenant's number of shards, if it has
// any, and then blocks of the same shard are merged to longer and longer ranges.
const (
	Split Stage = "split"
	Merge Stage = "merge"
	// Rewrite makes one block anew without the samples that are deleted.
	Rewrite Stage = "rewrite"
)

// Job is some blocks to be made into one, or into one for each shard.
type Job struct {
	Stage  Stage
	Shard  string // of the blocks and the result, as in block.ShardLabel; empty: not split
	Shards int    // of a split
	// MinTime <= t < MaxTime is the range, in milliseconds.
	MinTime, MaxTime int64
	Blocks           []block.IndexedBlock
	// Key is the same for the same work, whoever plans it and whatever blocks arrived meanwhile.
	Key string
}

// Bytes is the size of the blocks, as far as it is known.
func (j *Job) Bytes() (n int64) {
	for i := range j.Blocks {
		n += j.Blocks[i].SizeBytes
	}
	return n
}

// planning is what jobs are planned by.
type planning struct {
	ranges   []int64 // milliseconds, ascending
	shards   int     // 0: blocks are not split
	groups   int     // of blocks that are split together
	wait     time.Duration
	lookback time.Duration // 0: blocks of any age
	order    string
	now      time.Time
}

// kind tells blocks apart that must not be merged with each other.
func kind(b *block.IndexedBlock) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%d", b.Resolution)
	for _, k := range slices.Sorted(maps.Keys(b.Labels)) {
		fmt.Fprintf(&s, "\xff%s\xff%s", k, b.Labels[k])
	}
	return s.String()
}

// plan returns the jobs that are due. Blocks must not be marked for deletion or set aside.
func plan(blocks []block.IndexedBlock, p planning) []Job {
	kinds := map[string][]block.IndexedBlock{}
	for _, b := range blocks {
		if b.Resolution == 0 && (p.lookback <= 0 || b.MaxTime >= p.now.Add(-p.lookback).UnixMilli()) {
			k := kind(&b)
			kinds[k] = append(kinds[k], b)
		}
	}
	var jobs []Job
	for k, of := range kinds {
		jobs = append(jobs, p.ofKind(k, of)...)
	}
	slices.SortFunc(jobs, func(a, b Job) int {
		bySize := cmp.Compare(a.MaxTime-a.MinTime, b.MaxTime-b.MinTime)
		byAge := cmp.Compare(a.MinTime, b.MinTime)
		if p.order == NewestFirst {
			return cmp.Or(-cmp.Compare(a.MaxTime, b.MaxTime), bySize, strings.Compare(a.Key, b.Key))
		}
		return cmp.Or(bySize, byAge, strings.Compare(a.Key, b.Key))
	})
	return jobs
}

func (p *planning) ofKind(kind string, blocks []block.IndexedBlock) []Job {
	jobs := p.splits(kind, blocks)
	splitting := map[ulid.ULID]bool{}
	for i := range jobs {
		for _, b := range jobs[i].Blocks {
			splitting[b.ID] = true
		}
	}
	shards := map[string][]block.IndexedBlock{}
	for _, b := range blocks {
		if p.shards > 0 && b.CompactorShard == "" {
			continue // it is split first
		}
		shards[b.CompactorShard] = append(shards[b.CompactorShard], b)
	}
	splits := len(jobs)
	for shard, of := range shards {
		first := len(jobs)
		for i, r := range p.ranges {
			for _, j := range p.merges(kind, shard, of, r, i == 0) {
				// What is split or merged to a shorter range first will be merged to this one then.
				overlaps := func(o Job) bool { return o.MinTime < j.MaxTime && j.MinTime < o.MaxTime }
				if !slices.ContainsFunc(jobs[:splits], overlaps) && !slices.ContainsFunc(jobs[first:], overlaps) {
					jobs = append(jobs, j)
				}
			}
		}
	}
	return slices.DeleteFunc(jobs, func(j Job) bool { return p.waiting(&j) })
}

// waiting says whether the blocks of other replicas may still be on their way.
func (p *planning) waiting(j *Job) bool {
	return p.wait > 0 && slices.ContainsFunc(j.Blocks, func(b block.IndexedBlock) bool {
		return b.CompactionLevel <= 1 && p.now.Sub(time.Unix(b.UploadedAt, 0)) < p.wait
	})
}

// splits returns the jobs for blocks that have no shard yet.
func (p *planning) splits(kind string, blocks []block.IndexedBlock) []Job {
	if p.shards <= 0 {
		return nil
	}
	byKey := map[string]*Job{}
	var order []string
	for _, b := range blocks {
		if b.CompactorShard != "" {
			continue
		}
		from, to, ok := p.rangeOf(&b)
		if !ok {
			continue
		}
		h := fnv.New32a()
		_, _ = h.Write(b.ID[:]) // it never fails
		key := fmt.Sprintf("%s-%d-%d-%d-%d-%x", Split, p.shards, h.Sum32()%uint32(max(p.groups, 1)), from, to, kind)
		j := byKey[key]
		if j == nil {
			j = &Job{Stage: Split, Shards: p.shards, MinTime: from, MaxTime: to, Key: key}
			byKey[key] = j
			order = append(order, key)
		}
		j.Blocks = append(j.Blocks, b)
	}
	var out []Job
	for _, key := range order {
		out = append(out, *byKey[key])
	}
	return out
}

// rangeOf returns the shortest range that holds b whole.
func (p *planning) rangeOf(b *block.IndexedBlock) (from, to int64, ok bool) {
	for _, r := range p.ranges {
		if from, to := aligned(b.MinTime, r); b.MaxTime <= to {
			return from, to, true
		}
	}
	return 0, 0, false
}

// aligned is the range of length r that holds t.
func aligned(t, r int64) (from, to int64) {
	from = t - ((t%r)+r)%r
	return from, from + r
}

// merges returns the jobs that merge blocks of one shard to the length r. A range is merged when it
// is complete, so that its blocks are not merged again with every one that follows; those of the
// shortest range are, because they are the same samples of several replicas.
func (p *planning) merges(kind, shard string, blocks []block.IndexedBlock, r int64, shortest bool) []Job {
	ranges := map[int64][]block.IndexedBlock{}
	for _, b := range blocks {
		if from, to := aligned(b.MinTime, r); b.MaxTime <= to {
			ranges[from] = append(ranges[from], b)
		}
	}
	var out []Job
	for _, from := range slices.Sorted(maps.Keys(ranges)) {
		of := ranges[from]
		complete := time.UnixMilli(from + r + p.ranges[0]).Add(p.wait).Before(p.now)
		if len(of) < 2 || !shortest && !complete {
			continue
		}
		out = append(out, Job{Stage: Merge, Shard: shard, MinTime: from, MaxTime: from + r, Blocks: of,
			Key: fmt.Sprintf("%s-%s-%d-%d-%x", Merge, shard, from, from+r, kind)})
	}
	return out
}
