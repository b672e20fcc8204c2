package clustercache

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/grafana/dskit/cache"
	"github.com/grafana/dskit/ring"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/wire/cachepb"
)

// mood is how a member answers others.
type mood string

const (
	well   mood = ""
	dead   mood = "dead"
	slow   mood = "slow"   // it never answers
	lying  mood = "lying"  // it names keys that nobody asked for
	hollow mood = "hollow" // its items are empty
)

// gang is store-gateways that share a cache.
type gang struct {
	t *testing.T

	mu      sync.Mutex // guards what follows
	members map[string]*member
	asked   map[string]int // calls by the address called
}

type member struct {
	*Cache
	in   ring.InstanceDesc
	mood mood
}

// newGang must be called in a bubble of synctest, as the tests turn the clock.
func newGang(t *testing.T) *gang {
	g := &gang{t: t, members: map[string]*member{}, asked: map[string]int{}}
	return g
}

// join adds a member. Its address is its name.
func (g *gang) join(addr, zone string, most int) *member {
	tokens := ring.NewRandomTokenGeneratorWithSeed(int64(len(addr))*31+int64(addr[len(addr)-1])).GenerateTokens(64, nil)
	m := &member{in: ring.InstanceDesc{Id: addr, Addr: addr, Zone: zone, Tokens: tokens, State: ring.ACTIVE}}
	ledger := memory.New(memory.Limits{Process: 1 << 30, Go: 1 << 30}, memory.Deps{})
	m.Cache = New(Config{MaxBytes: most, Timeout: 200 * time.Millisecond}, Deps{Logger: slog.New(slog.DiscardHandler), Memory: ledger, Ring: gangRing{g: g}, Zone: zone, Addr: addr,
		Client: func(addr string) (cachepb.ClusterCacheClient, error) { return gangClient{g, addr}, nil }})
	g.mu.Lock()
	defer g.mu.Unlock()
	g.members[addr] = m
	return m
}

// leave takes a member out of the ring.
func (g *gang) leave(addr string) {
	g.mu.Lock()
	m := g.members[addr]
	delete(g.members, addr)
	g.mu.Unlock()
	_ = m.Close()
}

func (g *gang) close() {
	for _, addr := range g.addrs() {
		g.leave(addr)
	}
}

func (g *gang) addrs() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []string
	for addr := range g.members {
		out = append(out, addr)
	}
	slices.Sort(out)
	return out
}

func (g *gang) be(addr string, m mood) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.members[addr].mood = m
}

func (g *gang) calls(addr string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.asked[addr]
}

// gangRing is the ring of a gang, the dead included.
type gangRing struct {
	ring.ReadRing
	g *gang
}

func (r gangRing) GetAllHealthy(ring.Operation) (ring.ReplicationSet, error) {
	r.g.mu.Lock()
	defer r.g.mu.Unlock()
	var out ring.ReplicationSet
	for _, m := range r.g.members {
		out.Instances = append(out.Instances, m.in)
	}
	if len(out.Instances) == 0 {
		return out, ring.ErrEmptyRing
	}
	return out, nil
}

// gangClient calls a member as over a wire.
type gangClient struct {
	g    *gang
	addr string
}

func (c gangClient) answers(ctx context.Context) (*member, error) {
	c.g.mu.Lock()
	c.g.asked[c.addr]++
	m := c.g.members[c.addr]
	is := dead
	if m != nil {
		is = m.mood
	}
	c.g.mu.Unlock()
	switch is {
	case dead:
		return nil, errs.New(errs.Unavailable, "connection refused")
	case slow:
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return m, nil
}

// overTheWire is a copy of what is sent.
func overTheWire[T interface{ UnmarshalVT([]byte) error }](t *testing.T, in interface{ MarshalVT() ([]byte, error) }, out T) T {
	b, err := in.MarshalVT()
	if err == nil {
		err = out.UnmarshalVT(b)
	}
	if err != nil {
		t.Error(err)
	}
	return out
}

func (c gangClient) GetMulti(ctx context.Context, in *cachepb.GetMultiRequest, _ ...grpc.CallOption) (*cachepb.GetMultiResponse, error) {
	m, err := c.answers(ctx)
	if err != nil {
		return nil, err
	}
	switch m.mood {
	case lying:
		return &cachepb.GetMultiResponse{Found: []*cachepb.Found{{Key: 0, Data: []byte("x")}, {Key: 1 << 31, Data: []byte("x")}}}, nil
	case hollow:
		return &cachepb.GetMultiResponse{Found: []*cachepb.Found{{}}, Wait: make([]uint32, 1000)}, nil
	}
	out, err := m.GetMulti(ctx, overTheWire(c.g.t, in, &cachepb.GetMultiRequest{}))
	if err != nil {
		return nil, err
	}
	return overTheWire(c.g.t, out, &cachepb.GetMultiResponse{}), nil
}

func (c gangClient) SetMulti(ctx context.Context, in *cachepb.SetMultiRequest, _ ...grpc.CallOption) (*cachepb.SetMultiResponse, error) {
	m, err := c.answers(ctx)
	if err != nil {
		return nil, err
	}
	return m.SetMulti(ctx, overTheWire(c.g.t, in, &cachepb.SetMultiRequest{}))
}

// dataOf is what is stored under a key, and nothing else may be read.
func dataOf(key string) []byte { return []byte("data of " + key) }

func keysFrom(from, n int) (out []string) {
	for i := range n {
		out = append(out, "team-a/block/index:"+strconv.Itoa(from+i))
	}
	return out
}

// found is how many keys are found. It fails if anything but what was stored is.
func (m *member) found(t *testing.T, keys []string) int {
	t.Helper()
	got, err := m.Named("test").GetMultiWithError(t.Context(), keys)
	if err != nil {
		t.Errorf("%s: %v", m.in.Addr, err)
	}
	for key, data := range got {
		if !slices.Contains(keys, key) || string(data) != string(dataOf(key)) {
			t.Errorf("%s: %s reads as %q", m.in.Addr, key, data)
		}
	}
	return len(got)
}

func (m *member) store(keys []string) {
	for _, key := range keys {
		m.Named("test").SetAsync(key, dataOf(key), time.Hour)
	}
	synctest.Wait()
}

func TestAnItemIsHeldOnceAndFoundByAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGang(t)
		defer g.close()
		for i := range 4 {
			g.join(fmt.Sprint("m-", i), "", 1<<20)
		}
		keys := keysFrom(0, 300)
		g.members["m-0"].store(keys)
		held := 0
		for _, addr := range g.addrs() {
			n, bytes := g.members[addr].held.size()
			if n < 30 {
				t.Errorf("%s holds %d items of 300", addr, n)
			}
			if account := g.members[addr].deps.Memory.Account(memory.Caches).Held(); account != bytes {
				t.Errorf("%s has %d bytes and accounts for %d", addr, bytes, account)
			}
			held += n
			if n := g.members[addr].found(t, keys); n != 300 {
				t.Errorf("%s finds %d of 300", addr, n)
			}
		}
		if held != 300 {
			t.Errorf("%d items are held, want each once", held)
		}
		m := g.members["m-1"]
		ledger := m.deps.Memory
		m.held.shrink()
		g.leave("m-1")
		if n, bytes := m.held.size(); n > 60 || ledger.Account(memory.Caches).Held() != bytes {
			t.Errorf("%d items of %d bytes are left of those of a member whose memory is short", n, bytes)
		}
	})
}

func TestAZoneHasACacheOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGang(t)
		defer g.close()
		for i, zone := range []string{"a", "a", "b", "b"} {
			g.join(fmt.Sprint("m-", i), zone, 1<<20)
		}
		keys := keysFrom(0, 100)
		g.members["m-0"].store(keys)
		if n := g.members["m-1"].found(t, keys); n != 100 {
			t.Errorf("the other of the zone finds %d of 100", n)
		}
		if n := g.members["m-2"].found(t, keys); n != 0 {
			t.Errorf("the other zone finds %d", n)
		}
		if n := g.calls("m-2") + g.calls("m-3"); n == 0 || g.calls("m-2") > 1 {
			t.Errorf("%d calls within the other zone, none to itself", n)
		}
	})
}

// TestNoChangeOfTheRingGivesWrongData has members come, go, die and hang at random, while items are stored
// and read: whatever is found is what was stored, and nothing takes long.
func TestNoChangeOfTheRingGivesWrongData(t *testing.T) {
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 7))
			g := newGang(t)
			defer g.close()
			for i := range 3 {
				g.join(fmt.Sprint("m-", i), "", 1<<20)
			}
			hits := 0
			for range 400 {
				all := g.addrs()
				addr := all[r.IntN(len(all))]
				m := g.members[addr]
				switch keys := keysFrom(r.IntN(100), 1+r.IntN(20)); r.IntN(12) {
				case 0:
					if name := fmt.Sprint("m-", r.IntN(6)); !slices.Contains(all, name) {
						g.join(name, "", 20_000)
					}
				case 1:
					if len(all) > 1 {
						g.leave(addr)
					}
				case 2:
					g.be(addr, []mood{dead, slow, lying, hollow}[r.IntN(4)])
				case 3:
					for _, other := range all {
						g.be(other, well)
					}
				case 4:
					time.Sleep(time.Duration(r.IntN(8000)) * time.Millisecond)
				case 5, 6, 7:
					m.store(keys)
				default:
					began := time.Now()
					hits += m.found(t, keys)
					if took := time.Since(began); took > leaseTime+lastLook+2*pause {
						t.Errorf("reading took %s", took)
					}
				}
			}
			if hits == 0 {
				t.Error("nothing was ever found")
			}
		})
	}
}

func TestAHerdReadsTheBucketOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGang(t)
		defer g.close()
		for i := range 8 {
			g.join(fmt.Sprint("m-", i), "", 1<<20)
		}
		keys := keysFrom(0, 16)
		var reads atomic.Int64
		var wg sync.WaitGroup
		for _, addr := range g.addrs() {
			c := g.members[addr].Named("test")
			wg.Go(func() {
				got := c.GetMulti(t.Context(), keys)
				for _, key := range keys {
					if got[key] == nil {
						reads.Add(1)
						time.Sleep(50 * time.Millisecond) // the bucket
						c.SetAsync(key, dataOf(key), time.Hour)
					}
				}
			})
		}
		wg.Wait()
		if n := reads.Load(); n != 16 {
			t.Errorf("16 items were read from the bucket %d times by a herd of 8", n)
		}
	})
}

func TestWhoDoesNotBringWhatItAskedForHoldsOthersUpForTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGang(t)
		defer g.close()
		for i := range 3 {
			g.join(fmt.Sprint("m-", i), "", 1<<20)
		}
		keys := keysFrom(0, 20)
		took := func(addr string) time.Duration {
			began := time.Now()
			if n := g.members[addr].found(t, keys); n != 0 {
				t.Errorf("%s finds %d of what nobody stored", addr, n)
			}
			return time.Since(began)
		}
		if d := took("m-0"); d != 0 {
			t.Errorf("the first waits %s", d)
		}
		if d := took("m-0"); d != 0 {
			t.Errorf("who asks again waits %s for itself", d)
		}
		if d := took("m-1"); d < leaseTime || d > leaseTime+lastLook {
			t.Errorf("the next waits %s", d)
		}
		if d := took("m-1"); d != 0 {
			t.Errorf("the next, whose turn it is, waits %s", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		began := time.Now()
		g.members["m-2"].get(ctx, keys)
		if d := time.Since(began); d != time.Millisecond {
			t.Errorf("who gives up after 1ms waits %s", d)
		}
		for _, addr := range g.addrs() {
			for _, other := range g.addrs() {
				if g.members[addr].isPaused(other) {
					t.Errorf("%s leaves %s alone as somebody gave up", addr, other)
				}
			}
		}
	})
}

func TestWhoIsAwayIsLeftAloneForFiveSeconds(t *testing.T) {
	for _, m := range []mood{dead, slow, lying, hollow} {
		t.Run(string(m), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGang(t)
				defer g.close()
				one := g.join("m-0", "", 1<<20)
				g.join("m-1", "", 1<<20)
				keys := keysFrom(0, 50)
				one.store(keys)
				before := g.calls("m-1")
				own, _ := one.held.size()
				g.be("m-1", m)
				began := time.Now()
				for range 10 {
					if n := one.found(t, keys); n != own {
						t.Errorf("found %d of which %d are held here", n, own)
					}
					one.store(keys)
				}
				most := time.Duration(0)
				if m == slow {
					most = one.cfg.Timeout
				}
				if n, took := g.calls("m-1")-before, time.Since(began); n != 1 || took != most {
					t.Errorf("called %d times in %s", n, took)
				}
				g.be("m-1", well)
				time.Sleep(pause)
				if n := one.found(t, keys); n != 50 {
					t.Errorf("found %d of 50 after it came back", n)
				}
			})
		})
	}
}

func TestCallsThatAreTooLargeAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGang(t)
		defer g.close()
		m := g.join("m-0", "", 64<<20)
		item := func(key string, bytes int, ttl int64) []*cachepb.Item {
			return []*cachepb.Item{{Key: key, Data: make([]byte, bytes), TtlMs: ttl}}
		}
		long := string(make([]byte, mostKeyBytes+1))
		for what, items := range map[string][]*cachepb.Item{
			"too many": slices.Repeat(item("k", 1, 1000), mostKeys+1), "too large": item("k", mostItemBytes+1, 1000),
			"too much": slices.Repeat(item("k", mostItemBytes, 1000), 3), "a long key": item(long, 1, 1000), "no key": item("", 1, 1000),
			"no data": item("k", 0, 1000), "no time": item("k", 1, 0), "all time": item("k", 1, 1<<62), "nothing": {nil},
		} {
			if _, err := m.SetMulti(t.Context(), &cachepb.SetMultiRequest{Items: items}); errs.KindOf(err) != errs.Invalid {
				t.Errorf("%s: %v", what, err)
			}
		}
		for what, req := range map[string]*cachepb.GetMultiRequest{
			"too many": {Keys: slices.Repeat([]string{"k"}, mostKeys+1)}, "a long key": {Keys: []string{long}}, "no key": {Keys: []string{""}}, "a long name": {Asker: long},
		} {
			if _, err := m.GetMulti(t.Context(), req); errs.KindOf(err) != errs.Invalid {
				t.Errorf("%s: %v", what, err)
			}
		}
		if n, _ := m.held.size(); n != 0 {
			t.Errorf("%d items are held of calls that were refused", n)
		}
		c := m.Named("test")
		c.SetAsync("large", make([]byte, mostItemBytes+1), time.Hour)
		c.SetAsync(long, []byte("x"), time.Hour)
		keys := keysFrom(0, 10)
		for _, key := range keys {
			c.SetAsync(key, make([]byte, mostItemBytes), time.Hour)
		}
		answer, err := m.GetMulti(t.Context(), &cachepb.GetMultiRequest{Keys: keys})
		if n, _ := m.held.size(); err != nil || n != 10 || len(answer.Found) != mostCallBytes/mostItemBytes {
			t.Errorf("%d items are held, an answer has %d of them, %v", n, len(answer.Found), err)
		}
	})
}

// TestTheShelfHoldsWhatWasUsedLast compares a shelf with a list.
func TestTheShelfHoldsWhatWasUsedLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGang(t)
		defer g.close()
		const size, room = 1000, 20
		m := g.join("m-0", "", room*(size+itemOverheadBytes+2))
		r := rand.New(rand.NewPCG(3, 4))
		type kept struct {
			key     string
			mark    byte
			expires time.Time
		}
		var model []kept // the one used last at the end
		for step := range 20_000 {
			key := fmt.Sprintf("%02d", r.IntN(60))
			at := slices.IndexFunc(model, func(k kept) bool { return k.key == key })
			var was kept
			if at >= 0 {
				was = model[at]
			}
			switch r.IntN(10) {
			case 0:
				time.Sleep(time.Duration(r.IntN(20)) * time.Second)
			case 1, 2, 3, 4:
				data := make([]byte, size)
				data[7] = byte(step)
				ttl := time.Duration(1+r.IntN(200)) * time.Second
				m.set(key, data, ttl)
				if at >= 0 {
					model = slices.Delete(model, at, at+1)
				}
				model = append(model, kept{key, byte(step), time.Now().Add(ttl)})
				model = model[max(0, len(model)-room):]
			default:
				data, _ := m.held.get(key, "x", false)
				want := at >= 0 && time.Now().Before(was.expires)
				if (data != nil) != want || want && data[7] != was.mark {
					t.Fatalf("step %d: %s is there: %v, want %v", step, key, data != nil, want)
				}
				if at >= 0 {
					model = slices.Delete(model, at, at+1)
				}
				if want {
					model = append(model, was)
				}
			}
			if n, bytes := m.held.size(); n != len(model) || bytes > m.held.most || m.held.account.Held() != bytes {
				t.Fatalf("step %d: %d items of %d bytes, want %d; %d bytes are accounted for", step, n, bytes, len(model), m.held.account.Held())
			}
		}
	})
}

func TestLeasesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGang(t)
		defer g.close()
		m := g.join("m-0", "", 1<<20)
		for i := range 3 * mostLeases {
			m.held.get(strconv.Itoa(i), "x", true)
		}
		if n := len(m.held.leases); n != mostLeases || len(m.held.granted) != mostLeases {
			t.Errorf("%d leases, want %d", n, mostLeases)
		}
		time.Sleep(leaseTime)
		m.held.get("one", "x", true)
		if n := len(m.held.leases); n != 1 || len(m.held.granted) != 1 {
			t.Errorf("%d leases are left of those that ended", n-1)
		}
	})
}

var _ cache.Cache = (*named)(nil)

func BenchmarkLocalHit(b *testing.B) {
	g := newGang(nil)
	m := g.join("m-0", "", 16<<20)
	b.Cleanup(g.close)
	keys := keysFrom(0, 16)
	for _, key := range keys {
		m.set(key, make([]byte, 64<<10), time.Hour)
	}
	for _, n := range []int{1, 16} {
		b.Run(fmt.Sprint("items=", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if len(m.get(b.Context(), keys[:n])) != n {
					b.Fatal("not found")
				}
			}
		})
	}
}
