package ingester

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// disk is a file system whose free space a test sets.
type disk struct {
	free atomic.Uint64
	fail atomic.Bool
}

func (d *disk) space(string) (DiskSpace, error) {
	if d.fail.Load() {
		return DiskSpace{}, errors.New("stale handle")
	}
	return DiskSpace{Free: d.free.Load(), Total: 1000 << 20}, nil
}

func siteOnDisk(t *testing.T) (*site, *disk) {
	d := &disk{}
	d.free.Store(500 << 20)
	s := newSite(t, siteOptions{deps: func(deps *Deps) { deps.DiskSpace = d.space },
		change: func(c *Config) { c.Disk = DiskConfig{MinFreeRatio: 0.05, MinFreeBytes: 10 << 20} }})
	return s, d
}

// set changes the free space and has it looked at.
func (d *disk) set(s *site, mib uint64) {
	d.free.Store(mib << 20)
	s.space.look()
}

func wantRefused(t *testing.T, res frame.Result, id string) {
	t.Helper()
	if res.Outcome != frame.Failed || res.Kind != errs.Unavailable || !strings.Contains(res.Message, "(err-amphora-"+id+")") {
		t.Fatalf("got %+v, want a failure Unavailable with the id %s", res, id)
	}
}

func TestADiskThatIsNearlyFullTakesNoNewSeriesButTheKnownOnes(t *testing.T) {
	s, d := siteOnDisk(t)
	w := newSender(s.Ingester)
	w.mustPush(t, "t1", point{metric("a"), base, 1})
	d.set(s, 49)
	w.mustPush(t, "t1", point{metric("a"), base + 1, 2})
	wantRefused(t, w.push(t.Context(), w.frame("t1", point{metric("a"), base + 2, 3}, point{metric("b"), base + 2, 3})), "ingester-disk-low")
	wantRefused(t, w.push(t.Context(), w.frame("t2", point{metric("a"), base + 2, 3})), "ingester-disk-low")
	if got := s.counter(t, "amphora_ingester_instance_rejected_requests_total", "reason", "ingester_disk_low"); got != 2 {
		t.Errorf("%v pushes counted as refused, want 2", got)
	}
	d.set(s, 52) // not far enough above the threshold to count as above it
	wantRefused(t, w.push(t.Context(), w.frame("t1", point{metric("b"), base + 3, 3})), "ingester-disk-low")
	d.set(s, 60)
	w.mustPush(t, "t1", point{metric("b"), base + 3, 4})
	equal(t, s.dump(t, "t1"), map[string]string{`{__name__="a"}`: "0:1 1:2", `{__name__="b"}`: "3:4"})
}

func TestAFullDiskTakesNoSamplesAndStillAnswersQueries(t *testing.T) {
	s, d := siteOnDisk(t)
	w := newSender(s.Ingester)
	w.mustPush(t, "t1", point{metric("a"), base, 1})
	d.set(s, 9)
	wantRefused(t, w.push(t.Context(), w.frame("t1", point{metric("a"), base + 1, 2})), "ingester-disk-full")
	if got := s.counter(t, "amphora_ingester_disk_restriction"); got != 2 {
		t.Errorf("restriction %v, want 2", got)
	}
	equal(t, s.dump(t, "t1"), map[string]string{`{__name__="a"}`: "0:1"})
	d.fail.Store(true) // who does not know, stays where he is
	d.set(s, 500)
	wantRefused(t, w.push(t.Context(), w.frame("t1", point{metric("a"), base + 1, 2})), "ingester-disk-full")
	d.fail.Store(false)
	d.set(s, 500)
	w.mustPush(t, "t1", point{metric("a"), base + 1, 2})
}

func TestTinyAndLargeDisksAreJudgedByBytesAlone(t *testing.T) {
	c := DiskConfig{MinFreeRatio: 0.05, MinFreeBytes: 100}
	for _, x := range []struct {
		free uint64
		was  spaceState
		want spaceState
	}{
		{100, spaceEnough, spaceEnough}, {99, spaceEnough, spaceFull}, {109, spaceFull, spaceFull},
		{111, spaceFull, spaceEnough}, {1000, spaceFull, spaceEnough},
	} {
		if got := c.judge(DiskSpace{Free: x.free, Total: 1000}, x.was); got != x.want {
			t.Errorf("%d bytes free after state %d: %d, want %d", x.free, x.was, got, x.want)
		}
	}
	if got := c.judge(DiskSpace{Free: 10 << 30, Total: 1 << 40}, spaceEnough); got != spaceEnough {
		t.Errorf("10 GiB of a large disk are %d, want enough", got)
	}
	off := DiskConfig{}
	if got := off.judge(DiskSpace{Total: 1000}, spaceEnough); got != spaceEnough {
		t.Errorf("switched off, a full disk is %d", got)
	}
}

func TestALoadedProcessRefusesQueriesAndTakesPushes(t *testing.T) {
	for name, over := range map[string]Usage{"cpu": {CPU: 1000 * time.Hour}, "memory": {Heap: 2 << 30}} {
		t.Run(name, func(t *testing.T) {
			var usage atomic.Pointer[Usage]
			usage.Store(&Usage{})
			s := newSite(t, siteOptions{
				deps:   func(d *Deps) { d.Usage = func() (Usage, error) { return *usage.Load(), nil } },
				change: func(c *Config) { c.Load = LoadConfig{ReadCPU: 2.5, ReadBytes: 1 << 30} },
			})
			w := newSender(s.Ingester)
			w.mustPush(t, "t1", point{metric("a"), base, 1})
			now := time.Now()
			look := func(u Usage) {
				usage.Store(&u)
				for range 70 {
					now = now.Add(time.Second)
					if u.CPU > 0 {
						u.CPU += 3 * time.Second
						usage.Store(new(u))
					}
					s.load.look(now)
				}
			}
			look(over)
			q := &queryStream{ctx: tenant.Inject(context.Background(), "t1")}
			err := s.Query(everything(), q)
			if errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "ingester is currently too busy to process queries") {
				t.Fatalf("query: %v", err)
			}
			if got := s.counter(t, "amphora_ingester_utilization_limited_read_requests_total", "reason", name); got != 1 {
				t.Errorf("%v refusals counted, want 1", got)
			}
			w.mustPush(t, "t1", point{metric("a"), base + 1, 2})
			usage.Store(&Usage{CPU: usage.Load().CPU})
			for range 300 {
				now = now.Add(time.Second)
				s.load.look(now)
			}
			equal(t, s.dump(t, "t1"), map[string]string{`{__name__="a"}`: "0:1 1:2"})
		})
	}
}

func TestABurstOfCPUAfterTheStartRefusesNoQueries(t *testing.T) {
	var u Usage
	l := &load{}
	l.init(LoadConfig{ReadCPU: 1}, nil, func() (Usage, error) { return u, nil }, nil)
	now := time.Now()
	for range 59 {
		u.CPU, now = u.CPU+8*time.Second, now.Add(time.Second)
		l.look(now)
		if l.busy() != nil {
			t.Fatal("refused before the average is one over a whole window")
		}
	}
}

func TestInstanceLimitsRefuseAsTheyAreInForceNow(t *testing.T) {
	var most atomic.Pointer[InstanceLimits]
	most.Store(&InstanceLimits{})
	s := newSite(t, siteOptions{deps: func(d *Deps) {
		d.InstanceLimits = func(InstanceLimits) InstanceLimits { return *most.Load() }
	}})
	w := newSender(s.Ingester)
	w.mustPush(t, "t1", point{metric("a"), base, 1})
	push := func(tenant, name string, at int64) frame.Result {
		return w.push(t.Context(), w.frame(tenant, point{metric(name), at, 1}))
	}
	most.Store(&InstanceLimits{MaxSeries: 1})
	wantRefused(t, push("t1", "b", base), "ingester-max-series")
	most.Store(&InstanceLimits{MaxTenants: 1})
	wantRefused(t, push("t2", "a", base), "ingester-max-tenants")
	s.samples.events.Store(1000)
	s.samples.tick(time.Second)
	most.Store(&InstanceLimits{MaxIngestionRate: 1})
	wantRefused(t, push("t1", "a", base+1), "ingester-max-ingestion-rate")
	most.Store(&InstanceLimits{MaxInflightReadRequests: 1})
	r, err := s.beginRead(tenant.Inject(t.Context(), "t1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.beginRead(tenant.Inject(t.Context(), "t1")); errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "ingester-max-inflight-read-requests") {
		t.Errorf("second query: %v", err)
	}
	r.end()
	most.Store(&InstanceLimits{MaxInflightReadRequests: 1, MaxSeries: 3, MaxTenants: 2, MaxIngestionRate: 1e9})
	for _, res := range []frame.Result{push("t1", "b", base), push("t2", "a", base)} {
		if res.Outcome != frame.Stored {
			t.Errorf("within the limits: %+v", res)
		}
	}
	if n := len(s.dump(t, "t1")); n != 2 {
		t.Errorf("%d series, want 2", n)
	}
}

// onWrite is called with each line of a log.
type onWrite func()

func (f onWrite) Write(line []byte) (int, error) {
	f()
	return len(line), nil
}

// Who sees the restriction and pushes then meets it.
func TestARestrictionIsToldWhenItIsInForce(t *testing.T) {
	var s space
	var told dto.Metric
	lines := 0
	look := func() {
		lines++
		if err := s.restrictions.Write(&told); err != nil || told.GetGauge().GetValue() != float64(s.state.Load()) {
			t.Errorf("%g is told while %d is in force (%v)", told.GetGauge().GetValue(), s.state.Load(), err)
		}
	}
	d := &disk{}
	s.init(Config{Disk: DiskConfig{MinFreeRatio: 0.05, MinFreeBytes: 10 << 20}}, slog.New(slog.NewTextHandler(onWrite(look), nil)), d.space, prometheus.NewRegistry())
	for _, free := range []uint64{500, 40, 5, 500} {
		d.free.Store(free << 20)
		s.look()
		look()
	}
	if lines != 4+3 {
		t.Errorf("looked %d times, want after each step and at each of three changes", lines)
	}
}

func TestAStartOnAFullDiskWaitsUntilThereIsRoom(t *testing.T) {
	s := newSite(t, siteOptions{})
	newSender(s.Ingester).mustPush(t, "t1", point{metric("a"), base, 1})
	s.stopped(t)
	d := &disk{}
	d.free.Store(5 << 20)
	var logs lockedBuffer
	done := make(chan *site, 1)
	go func() {
		done <- newSite(t, siteOptions{dir: s.dir, logger: slog.New(slog.NewTextHandler(&logs, nil)), deps: func(deps *Deps) { deps.DiskSpace = d.space }})
	}()
	poll(t, "the start to wait", func() bool { return strings.Contains(logs.String(), "the start waits until there is room") })
	select {
	case <-done:
		t.Fatal("started on a full disk")
	default:
	}
	d.free.Store(500 << 20)
	equal(t, (<-done).dump(t, "t1"), map[string]string{`{__name__="a"}`: "0:1"})
}
