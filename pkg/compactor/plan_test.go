package compactor

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/amphora-metrics/amphora/pkg/block"
)

const hour = int64(time.Hour / time.Millisecond)

// blk describes a block from hour from to hour to.
func blk(n uint64, from, to int64, change ...func(*block.IndexedBlock)) block.IndexedBlock {
	b := block.IndexedBlock{ID: ulid.MustNew(n, nil), MinTime: from * hour, MaxTime: to * hour, CompactionLevel: 1}
	for _, c := range change {
		c(&b)
	}
	return b
}

func shardOf(s string) func(*block.IndexedBlock) {
	return func(b *block.IndexedBlock) { b.CompactorShard, b.CompactionLevel = s, 2 }
}

func planned(jobs []Job) string {
	var out []string
	for _, j := range jobs {
		var ids []string
		for _, b := range j.Blocks {
			ids = append(ids, fmt.Sprint(b.ID.Time()))
		}
		out = append(out, fmt.Sprintf("%s%s %d-%d: %s", j.Stage, j.Shard, j.MinTime/hour, j.MaxTime/hour, strings.Join(ids, ",")))
	}
	return strings.Join(out, "; ")
}

func TestPlan(t *testing.T) {
	base := planning{ranges: []int64{2 * hour, 12 * hour, 24 * hour}, groups: 1, now: time.UnixMilli(1000 * hour)}
	recent := func(b *block.IndexedBlock) { b.UploadedAt = 1000*3600 - 60 }
	for name, c := range map[string]struct {
		blocks []block.IndexedBlock
		change func(*planning)
		want   string
	}{
		"nothing":                       {},
		"one block":                     {blocks: []block.IndexedBlock{blk(1, 0, 2)}},
		"replicas of one range":         {blocks: []block.IndexedBlock{blk(1, 0, 2), blk(2, 0, 2), blk(3, 2, 4)}, want: "merge 0-2: 1,2"},
		"neighbours":                    {blocks: []block.IndexedBlock{blk(1, 0, 2), blk(2, 2, 4), blk(3, 12, 14)}, want: "merge 0-12: 1,2"},
		"a long range waits for short":  {blocks: []block.IndexedBlock{blk(1, 0, 2), blk(2, 0, 2), blk(3, 2, 4), blk(4, 14, 16), blk(5, 16, 18)}, want: "merge 0-2: 1,2; merge 12-24: 4,5"},
		"longest range":                 {blocks: []block.IndexedBlock{blk(1, 0, 12), blk(2, 12, 24)}, want: "merge 0-24: 1,2"},
		"a late block joins a long one": {blocks: []block.IndexedBlock{blk(1, 0, 24), blk(2, 4, 6)}, want: "merge 0-24: 1,2"},
		"an open range is left alone":   {blocks: []block.IndexedBlock{blk(1, 996, 998), blk(2, 998, 1000)}},
		"but its replicas are merged":   {blocks: []block.IndexedBlock{blk(1, 996, 998), blk(2, 996, 998)}, want: "merge 996-998: 1,2"},
		"replicas on their way": {blocks: []block.IndexedBlock{blk(1, 0, 2, recent), blk(2, 0, 2)},
			change: func(p *planning) { p.wait = 25 * time.Minute }},
		"longer than the longest range": {blocks: []block.IndexedBlock{blk(1, 0, 48), blk(2, 0, 48)}},
		"across ranges":                 {blocks: []block.IndexedBlock{blk(1, 1, 3), blk(2, 1, 3)}, want: "merge 0-12: 1,2"},
		"other external labels":         {blocks: []block.IndexedBlock{blk(1, 0, 2), blk(2, 0, 2, func(b *block.IndexedBlock) { b.Labels = map[string]string{"cluster": "b"} })}},
		"downsampled":                   {blocks: []block.IndexedBlock{blk(1, 0, 2, func(b *block.IndexedBlock) { b.Resolution = 300_000 }), blk(2, 0, 2, func(b *block.IndexedBlock) { b.Resolution = 300_000 })}},
		"too old":                       {blocks: []block.IndexedBlock{blk(1, 0, 2), blk(2, 0, 2)}, change: func(p *planning) { p.lookback = 100 * time.Hour }},
		"split": {blocks: []block.IndexedBlock{blk(1, 0, 2), blk(2, 0, 2), blk(3, 2, 4)}, change: func(p *planning) { p.shards = 2 },
			want: "split 0-2: 1,2; split 2-4: 3"},
		"split, then merge": {blocks: []block.IndexedBlock{blk(1, 0, 2, shardOf("1_of_2")), blk(2, 0, 2, shardOf("2_of_2")), blk(3, 2, 4, shardOf("1_of_2")), blk(4, 2, 4, shardOf("2_of_2"))},
			change: func(p *planning) { p.shards = 2 }, want: "merge1_of_2 0-12: 1,3; merge2_of_2 0-12: 2,4"},
		"merging waits for a split": {blocks: []block.IndexedBlock{blk(1, 0, 2, shardOf("1_of_2")), blk(3, 2, 4, shardOf("1_of_2")), blk(5, 4, 6)},
			change: func(p *planning) { p.shards = 2 }, want: "split 4-6: 5"},
		"newest first": {blocks: []block.IndexedBlock{blk(1, 0, 2), blk(2, 0, 2), blk(3, 4, 6), blk(4, 4, 6)},
			change: func(p *planning) { p.order = NewestFirst }, want: "merge 4-6: 3,4; merge 0-2: 1,2"},
	} {
		p := base
		if c.change != nil {
			c.change(&p)
		}
		if got := planned(plan(c.blocks, p)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestTimesBeforeTheEpochAreAligned(t *testing.T) {
	for _, c := range [][3]int64{{-1, -2, 0}, {-2, -2, 0}, {0, 0, 2}, {3, 2, 4}} {
		if from, to := aligned(c[0]*hour, 2*hour); from != c[1]*hour || to != c[2]*hour {
			t.Errorf("hour %d is in %d-%d", c[0], from/hour, to/hour)
		}
	}
}

func TestSettingsAreChecked(t *testing.T) {
	good := Config{DataDir: "x", BlockRanges: []string{"2h", "1d"}, Interval: 1, CleanupInterval: 1, Concurrency: 1, CleanupConcurrency: 1, Retries: 1}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no ranges": func(c *Config) { c.BlockRanges = nil }, "no duration": func(c *Config) { c.BlockRanges = []string{"two"} },
		"no multiple": func(c *Config) { c.BlockRanges = []string{"2h", "3h"} }, "descending": func(c *Config) { c.BlockRanges = []string{"4h", "2h"} },
		"no directory": func(c *Config) { c.DataDir = "" }, "no interval": func(c *Config) { c.Interval = 0 },
	} {
		c := good
		change(&c)
		if err := c.Validate(); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
