package memory

import "testing"

func TestSmallHeapsMayGrowBeforeTheyAreCollected(t *testing.T) {
	for _, c := range []struct {
		live, limit int64
		want        int
	}{
		{live: 0, limit: 1 << 30, want: 100},        // nothing is known
		{live: 1 << 20, limit: 1 << 30, want: 1200}, // Go lets each hundred have four megabytes
		{live: 8 << 20, limit: 1 << 30, want: 500},  // 48 in all
		{live: 16 << 20, limit: 1 << 30, want: 200},
		{live: 24 << 20, limit: 1 << 30, want: 100}, // as much garbage as is alive, from here on
		{live: 800 << 20, limit: 1 << 30, want: 100},
		{live: 8 << 20, limit: 64 << 20, want: 100}, // there is little memory
		{live: 4 << 20, limit: 64 << 20, want: 300}, // a quarter of it in all
		{live: 1 << 20, limit: 1 << 20, want: usualPercent},
		{live: 20_000_000, limit: 1 << 30, want: 151},
		{live: 48<<20/2 - 1, limit: 1 << 30, want: 100},
		{live: 1 << 40, limit: 1 << 50, want: usualPercent},
	} {
		got := usualPercent
		p := pacing{percent: usualPercent, set: func(percent int) int { got = percent; return 0 }}
		p.follow(c.live, c.limit)
		if got != c.want {
			t.Errorf("%d bytes alive of %d: %d %%, want %d", c.live, c.limit, got, c.want)
		}
	}
}

func TestThePaceIsSetOnlyWhenItIsFarOff(t *testing.T) {
	sets := 0
	p := pacing{percent: usualPercent, set: func(int) int { sets++; return 0 }}
	for range 3 {
		for _, live := range []int64{8 << 20, 8<<20 + 100_000, 8<<20 - 100_000} {
			p.follow(live, 1<<30)
		}
	}
	if sets != 1 {
		t.Errorf("set %d times for heaps of one size", sets)
	}
	if p.follow(100<<20, 1<<30); sets != 2 || p.percent != usualPercent {
		t.Errorf("a large heap has %d %%", p.percent)
	}
}

func TestThePaceIsLeftToTheEnvironment(t *testing.T) {
	t.Setenv("GOGC", "off")
	p := newPacing()
	p.follow(1<<20, 1<<30) // would panic
	if p.set != nil {
		t.Error("GOGC is overruled")
	}
}

func TestCollectionsSetThePace(t *testing.T) {
	p := newProcess(t)
	got := 0
	p.pacing = pacing{percent: usualPercent, set: func(percent int) int { got = percent; return 0 }}
	p.collected(5 * mb)
	if got != 400 { // a quarter of 100 MB is 25
		t.Errorf("after a collection that found 5 MB alive: %d %%", got)
	}
}
