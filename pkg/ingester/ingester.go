// Package ingester owns the recent data of all tenants on one process: it takes frames from
// distributors and acknowledges them once they are in the write-ahead log, answers queries about
// recent samples, cuts them into blocks, ships those to the bucket and truncates the log.
package ingester

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/grafana/dskit/ring"
	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/head"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/members"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/telemetry"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/turns"
	"github.com/amphora-metrics/amphora/pkg/wal"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

// RingName and RingKey are where ingesters register.
const (
	RingName = "ingester"
	RingKey  = "ring"
)

// Deps are what an Ingester needs from the process.
type Deps struct {
	Logger *slog.Logger
	Reg    prometheus.Registerer // nil: metrics are not exposed
	// Limits returns the tenant's limits of this moment.
	Limits func(tenant.ID) limits.View
	// Place returns where this ingester stands among those of a tenant, the same pointer while
	// nothing changes. nil: there is one ingester.
	Place func(tenant.ID) *Place
	// Attribution is where and how usage is attributed to values of labels.
	Attribution Attribution
	// Bucket holds the blocks of all tenants, each under its ID.
	Bucket     objstore.Bucket
	Lifecycler ring.LifecyclerConfig
	// RingMemory is who was in the ring before this start. nil: it is not remembered.
	RingMemory *members.Memory
	// InstanceLimits returns the configured instance limits as changed while running. nil: as
	// configured.
	InstanceLimits func(InstanceLimits) InstanceLimits
	Memory         *memory.Ledger                      // nil: bounded by InstanceLimits alone
	Now            func() time.Time                    // nil: time.Now
	DiskSpace      func(dir string) (DiskSpace, error) // nil: that of the file system
	Usage          func() (Usage, error)               // nil: that of the process
	Turns          *turns.Gate                         // of reads; nil: who computes when is left to the machine
}

// Attribution is where series are counted by values of their labels.
type Attribution struct {
	Reg             prometheus.Registerer // nil: the counts are not exposed
	CleanupInterval time.Duration         // 0: 3 m
}

// Ingester holds recent samples. It is a services.Service, a frame.Server and an
// ingesterpb.IngesterQueryServer.
type Ingester struct {
	*services.BasicService
	ingesterpb.UnimplementedIngesterQueryServer

	cfg     Config
	log     *slog.Logger
	metrics *metrics
	limits  func(tenant.ID) limits.View
	place   func(tenant.ID) *Place              // nil: there is one ingester
	changed func(InstanceLimits) InstanceLimits // nil: instance limits are as configured
	bucket  objstore.Bucket
	timing
	lifecycler *ring.Lifecycler
	unregister bool // as configured
	reading

	wal *wal.Log // set while starting
	// firstOwn is the first segment of the log that this process writes. What earlier ones define
	// is known to nobody any more, so that they go together.
	firstOwn int

	session atomic.Uint64 // the last session given out
	guards
	counts
	// completeSince is since when, in Unix milliseconds, all that was acknowledged is here.
	completeSince atomic.Int64

	pushes pushes
	pool   sync.Pool // of *push

	opening opener
	mu      sync.RWMutex // guards tenants
	tenants map[tenant.ID]*tenantHead

	streamsMu sync.Mutex // guards streams; taken before the lock of a stream
	streams   map[*stream]struct{}

	truncating sync.Mutex // one truncation of the log at a time
	truncated  occasional

	background background
	standing   standing
}

// reading is who may read.
type reading struct {
	reads chan struct{} // a token for each query being answered
	packs sync.Pool     // of *[]byte, memory for what queries send
	turns *turns.Gate   // nil: who computes when is left to the machine
}

// background is what stopping waits for.
type background struct {
	mu      sync.Mutex // guards stopped
	stopped bool
	running sync.WaitGroup
	flushes flushJobs
}

// counts are over all tenants.
type counts struct {
	series, refusals atomic.Int64
	released         occasional // chunks of all heads, because the process was short of memory
	late             lateWrites
}

// New returns an ingester in dir cfg.DataDir, not started.
func New(cfg Config, deps Deps) (*Ingester, error) {
	i := &Ingester{
		cfg: cfg, log: deps.Logger, limits: deps.Limits, place: deps.Place,
		bucket: deps.Bucket, timing: timing{now: deps.Now}, tenants: map[tenant.ID]*tenantHead{}, streams: map[*stream]struct{}{},
		unregister: deps.Lifecycler.UnregisterOnShutdown, standing: standing{memory: deps.RingMemory},
	}
	if i.log == nil {
		i.log = slog.Default()
	}
	if i.now == nil {
		i.now = time.Now
	}
	if i.limits == nil {
		i.limits = func(tenant.ID) limits.View { return limits.View{} }
	}
	i.changed = deps.InstanceLimits
	i.late.init(i.now())
	i.clock = newActiveClock(i.now(), cfg.ActiveSeries.IdleTimeout)
	reads := cfg.ReadConcurrency
	if reads <= 0 {
		reads = 8 * runtime.GOMAXPROCS(0)
	}
	i.reads, i.turns = make(chan struct{}, reads), deps.Turns
	i.memory = accountsOf(deps.Memory)
	deps.Memory.OnPressure(i.shrink)
	var seed [8]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return nil, fmt.Errorf("draw a session: %w", err)
	}
	i.session.Store(binary.LittleEndian.Uint64(seed[:]))
	if i.untangle = deps.Attribution.CleanupInterval; i.untangle <= 0 {
		i.untangle = 3 * time.Minute
	}
	i.metrics = newMetrics(deps.Reg, i)
	if deps.Attribution.Reg != nil {
		deps.Attribution.Reg.MustRegister(newAttributedCollector(i))
	}
	i.space.init(cfg, i.log, deps.DiskSpace, deps.Reg)
	i.load.init(cfg.Load, i.log, deps.Usage, deps.Reg)
	i.initGates(cfg.Gates, deps.Reg, i.metrics.rejected)
	i.opening.selections = newSelections(cfg.Selections, deps.Memory, deps.Reg)
	var err error
	i.lifecycler, err = ring.NewLifecycler(deps.Lifecycler, flusher{i}, RingName, RingKey,
		cfg.FlushBlocksOnShutdown, telemetry.GoKit(i.log), prometheus.WrapRegistererWithPrefix("amphora_", registerer(deps.Reg)))
	if err != nil {
		return nil, fmt.Errorf("create ingester's ring entry: %w", err)
	}
	i.BasicService = services.NewBasicService(i.starting, i.running, i.stopping).WithName("ingester")
	return i, nil
}

func registerer(reg prometheus.Registerer) prometheus.Registerer {
	if reg == nil {
		return prometheus.NewRegistry()
	}
	return reg
}

// nextSession returns a number no head in the log has used. Sessions of one process count up from
// a random start.
func (i *Ingester) nextSession() uint64 { return i.session.Add(1) }

// starting reads the log back and joins the ring.
func (i *Ingester) starting(ctx context.Context) error {
	if err := i.awaitSpace(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(i.tenantsDir(), 0o750); err != nil {
		return errs.New(errs.Unavailable, "create data directory: %w", err)
	}
	var err error
	if i.opening.shared, err = head.NewShared(i.cfg.DataDir); err != nil {
		return errs.New(errs.Unavailable, "prepare heads: %w", err)
	}
	log, err := wal.Open(filepath.Join(i.cfg.DataDir, "wal"), wal.Options{Config: i.cfg.WAL, Logger: i.log, Reg: i.metrics.reg})
	if err != nil {
		return err
	}
	i.wal = log
	if err := i.recover(ctx); err != nil {
		return errors.Join(err, i.closeAll())
	}
	if i.prepareShutdownMarked() {
		i.lifecycler.SetFlushOnShutdown(true)
		i.lifecycler.SetUnregisterOnShutdown(true)
	}
	i.space.look()
	i.accepting.Store(true)
	i.readable.Store(true)
	if err := i.join(ctx); err != nil {
		return errors.Join(err, i.closeAll())
	}
	return nil
}

// running keeps house until the service is stopped.
func (i *Ingester) running(ctx context.Context) error {
	fail := make(chan error, 1)
	i.lifecycler.AddListener(services.NewListener(nil, nil, nil, nil, func(_ services.State, err error) {
		select {
		case fail <- err:
		default:
		}
	}))
	i.background.start(func() { i.watch(ctx) })
	house := time.NewTicker(i.cfg.CompactionInterval)
	defer house.Stop()
	rates := time.NewTicker(rateTick)
	defer rates.Stop()
	active := time.NewTicker(i.activityPeriod())
	defer active.Stop()
	round := make(chan struct{}, 1) // holds a token while a round runs
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-fail:
			return fmt.Errorf("ingester's ring entry: %w", err)
		case <-rates.C:
			for _, t := range i.all() {
				t.stats.tick()
			}
		case <-active.C:
			i.refreshActivity()
		case <-house.C:
			select {
			case round <- struct{}{}:
				i.background.start(func() {
					i.keepHouse(ctx)
					<-round
				})
			default: // the last round still runs
			}
		}
	}
}

// start runs do on a goroutine; it does nothing, and says so, once stop has begun.
func (b *background) start(do func()) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.stopped {
		b.running.Go(do)
	}
	return !b.stopped
}

// stop waits for what runs and lets nothing more start.
func (b *background) stop() {
	b.mu.Lock()
	b.stopped = true
	b.mu.Unlock()
	b.running.Wait()
}

// stopping refuses pushes, leaves the ring as configured, with or without a flush, and closes
// everything.
func (i *Ingester) stopping(error) error {
	ctx := context.Background()
	how := i.prepareLeave(ctx)
	i.accepting.Store(false)
	i.background.stop()
	err := i.pushes.settle(ctx)
	settled := err == nil
	if serr := services.StopAndAwaitTerminated(ctx, i.lifecycler); serr != nil {
		err = errors.Join(err, fmt.Errorf("leave the ring: %w", serr))
	}
	switch {
	case how.flush && how.failed == nil:
		if terr := i.truncate(ctx); terr != nil {
			i.log.Warn("write-ahead log not truncated after the flush, it will be read back at the next start", "err", terr)
		}
	case settled && i.cfg.SnapshotOnShutdown:
		if serr := i.takeSnapshot(ctx); serr != nil {
			i.log.Warn("no snapshot written, the write-ahead log will be read back at the next start", "err", serr)
		}
	}
	err = errors.Join(err, i.left(ctx, how))
	if how.failed == nil {
		err = errors.Join(err, i.markPrepareShutdown(false))
	}
	return errors.Join(err, i.closeAll())
}

// closeAll closes the log and all heads. A head that a query still reads from after closeWait
// stays open: its memory must not go away under the reader.
func (i *Ingester) closeAll() error {
	i.accepting.Store(false)
	i.readable.Store(false)
	var out []error
	if i.wal != nil {
		out = append(out, i.wal.Close())
	}
	defer i.opening.stop()()
	deadline := time.Now().Add(closeWait)
	var mu sync.Mutex // guards out
	each(i.all(), closeConcurrency, func(t *tenantHead) {
		if err := t.shut(deadline); err != nil {
			mu.Lock()
			defer mu.Unlock()
			out = append(out, err)
		}
	})
	i.mu.Lock()
	clear(i.tenants)
	i.mu.Unlock()
	return errors.Join(out...)
}

const (
	// closeConcurrency is how many heads are closed at a time; each waits for its disk.
	closeConcurrency = 16

	closeWait = 30 * time.Second
	closePoll = 5 * time.Millisecond
)

// shut closes the head once nobody uses it.
func (t *tenantHead) shut(deadline time.Time) error {
	for !t.gate.TryLock() {
		if time.Now().After(deadline) {
			return errs.New(errs.Unavailable, "tenant %s: queries still read after %s, head not closed", t.id, closeWait)
		}
		time.Sleep(closePoll)
	}
	defer t.gate.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	if err := t.metadata.save(t.dir); err != nil {
		t.ing.log.Warn("metadata not written, this start is the last to know it until senders say it again", "tenant", t.id, "err", err)
	}
	if err := t.head.Close(); err != nil {
		return fmt.Errorf("close tenant %s: %w", t.id, err)
	}
	return nil
}

// flusher is what the ring entry calls on its way out.
type flusher struct{ i *Ingester }

// TransferOut says that samples are not handed to another ingester.
func (flusher) TransferOut(context.Context) error { return ring.ErrTransferDisabled }

// Flush cuts and ships everything.
func (f flusher) Flush() { f.i.flushAll() }
