package distributor

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/relabel"
	"golang.org/x/time/rate"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// tenantIdle is how long a tenant may push nothing before its table and metrics are dropped.
const tenantIdle = seriesIdle + 5*time.Minute

// tenantState is what a distributor keeps of one tenant.
type tenantState struct {
	id      tenant.ID
	table   *table
	metrics tenantMetrics

	pushes atomic.Int64  // under way, including those that slow replicas still hold
	seen   atomic.Uint32 // tick of the last push
	latest atomic.Int64  // largest timestamp seen
	groups groups
	costs  atomic.Pointer[costs] // nil: nothing was attributed yet

	limits atomic.Pointer[tenantLimits]
	rates  struct {
		of                  atomic.Pointer[rateKey]
		requests, ingestion *rate.Limiter // made under the first limits
	}
	mu sync.Mutex // held while limits or rates change
}

// verdictLimits are the limits that decide whether a series is valid and where it lives.
type verdictLimits struct {
	nameBytes, valueBytes, labels, infoLabels int
	utf8                                      bool
	shardSize                                 int
	shapeLimits
}

// shapeLimits are the limits that decide under which labels a series is stored.
type shapeLimits struct {
	rules string // metric_relabel_configs
	drop  string // drop_labels
	replicaLabels
	// shorten takes part in the comparison with what it says, its limit included.
	shorten shortening
}

// tenantLimits are the limits of one tenant in the form a push uses, with times in milliseconds.
type tenantLimits struct {
	verdictLimits
	view    uint64 // epoch of the View
	verdict uint32 // grows when verdictLimits change
	growth  growth // to come
	shape   uint32 // the verdict since which shapeLimits are as they are

	relabel          []*relabel.Config
	dropLabels       []string
	replicas         replicaLimits
	futureMs, pastMs int64 // pastMs 0: not checked
	metadataBytes    int
	metadataNames    bool // metadata without a metric name is refused
	histograms       bool
	startTimes       [remotewrite.NumOrigins]bool // by origin of a push
	buckets          int
	reduce           bool
	exemplars        bool
	seriesExemplars  int        // of one request; 0: no limit
	groupLabel       string     // empty: none
	costs            *costRules // nil: usage is not attributed
	requestRate      float64
	requestBurst     int
	ingestionRate    float64
	ingestionBurst   int
	delay            time.Duration // until a push is answered
	typeAndUnit      bool
	split            *splitter // nil: all series are of the tenant that sends them
}

// most stands for no limit.
const most = math.MaxInt32

// mostLabels bounds the labels of a series whatever the limits say.
const mostLabels = 4096

func orMost(n int) int {
	if n <= 0 {
		return most
	}
	return n
}

// limitsOf returns the tenant's limits under v. The epoch of v changes with the limits of any
// tenant; series are only checked anew if those that matter to them are different now. A shard that
// became larger is used after some time.
func (t *tenantState) limitsOf(v limits.View, now time.Time, deps *Deps) *tenantLimits {
	old := t.limits.Load()
	if old.current(v, now) {
		return old
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if old = t.limits.Load(); old.current(v, now) {
		return old
	}
	l := readLimits(v)
	l.readReplicas(v, deps.Replicas != nil)
	l.hold(old, now, deps.ShardGrowDelay)
	l.verdict, l.shape = 1, 1
	was := old.splitter()
	if l.split = newSplitter(t.id, v, was, t.table.budget); l.split != was {
		was.finish()
	}
	if old != nil {
		l.verdict, l.shape = old.verdict, old.shape
		if l.verdictLimits != old.verdictLimits {
			l.verdict++
		}
		if l.shapeLimits != old.shapeLimits {
			l.shape = l.verdict
		}
		l.replicas.pairs = old.replicas.pairs
		if l.replicas.pairs.outgrown() {
			l.verdict++
			l.shape = l.verdict
		}
	}
	switch {
	case l.replicaLabels == replicaLabels{}:
		l.replicas.pairs = nil
	case old == nil || l.shape != old.shape:
		l.replicas.pairs = newPairs() // what is remembered of series names others
	}
	t.limits.Store(l)
	return l
}

// current says whether l is what v says now. l may be nil.
func (l *tenantLimits) current(v limits.View, now time.Time) bool {
	return l != nil && l.view == v.Epoch() && !l.growth.due(now) && !l.replicas.pairs.outgrown()
}

// splitter is what splits pushes under l, nil if nothing does. l may be nil.
func (l *tenantLimits) splitter() *splitter {
	if l == nil {
		return nil
	}
	return l.split
}

func readLimits(v limits.View) *tenantLimits {
	l := &tenantLimits{
		verdictLimits: verdictLimits{
			nameBytes:  orMost(limits.MaxLabelNameLength.Of(v)),
			valueBytes: orMost(limits.MaxLabelValueLength.Of(v)),
			labels:     min(orMost(limits.MaxLabelNamesPerSeries.Of(v)), mostLabels),
			utf8:       limits.NameValidationScheme.Of(v) == "utf8",
			shardSize:  limits.IngestionTenantShardSize.Of(v),
		},
		view:           v.Epoch(),
		futureMs:       limits.CreationGracePeriod.Of(v).Milliseconds(),
		metadataBytes:  orMost(limits.MaxMetadataLength.Of(v)),
		metadataNames:  limits.EnforceMetadataMetricName.Of(v),
		histograms:     limits.NativeHistogramsIngestionEnabled.Of(v),
		buckets:        limits.MaxNativeHistogramBuckets.Of(v),
		reduce:         limits.ReduceNativeHistogramOverMaxBuckets.Of(v),
		exemplars:      limits.MaxGlobalExemplarsPerUser.Of(v) > 0,
		groupLabel:     limits.SeparateMetricsGroupLabel.Of(v),
		requestRate:    limits.RequestRate.Of(v),
		requestBurst:   limits.RequestBurstSize.Of(v),
		ingestionRate:  limits.IngestionRate.Of(v),
		ingestionBurst: limits.IngestionBurstSize.Of(v),
		delay:          limits.IngestionArtificialDelay.Of(v),
		typeAndUnit:    limits.EnableTypeAndUnitLabels.Of(v),
	}
	l.startTimes[remotewrite.RemoteWrite] = limits.CreatedTimestampZeroIngestion.Of(v)
	l.startTimes[remotewrite.OTLP] = limits.OTelCreatedTimestampZeroIngestion.Of(v)
	l.seriesExemplars = limits.MaxExemplarsPerSeriesPerRequest.Of(v)
	if factor := limits.IngestionBurstFactor.Of(v); factor > 0 && l.ingestionRate > 0 {
		l.ingestionBurst = int(math.Ceil(min(factor*l.ingestionRate, most)))
	}
	l.infoLabels = min(max(l.labels, limits.MaxLabelNamesPerInfoSeries.Of(v)), mostLabels)
	l.costs = readCosts(v)
	l.readShape(v)
	if grace := limits.PastGracePeriod.Of(v); grace > 0 {
		l.pastMs = (grace + limits.OutOfOrderTimeWindow.Of(v)).Milliseconds()
	}
	return l
}

// rateKey is what the rate limiters were last set from.
type rateKey struct {
	limits *tenantLimits
	share  int // distributors that share the limits
}

// mostFilling bounds the time in which a raised limit is taken to have filled, which may be no more than a duration holds.
const mostFilling = 365 * 24 * time.Hour

// setRates makes the limiters follow l, of which this process grants one share.
func (t *tenantState) setRates(l *tenantLimits, share int, now time.Time) {
	share = max(share, 1)
	if k := t.rates.of.Load(); k != nil && k.limits == l && k.share == share {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rates.of.Load() == nil {
		// A fresh limiter starts with its whole burst.
		t.rates.requests = rate.NewLimiter(0, burst(l.requestRate, l.requestBurst))
		t.rates.ingestion = rate.NewLimiter(0, burst(l.ingestionRate, l.ingestionBurst))
	}
	set := func(r *rate.Limiter, limit float64, most int) {
		if limit <= 0 {
			r.SetLimitAt(now, rate.Inf)
			return
		}
		perSecond := limit / float64(share)
		more := burst(limit, most)
		if r.Limit() != rate.Inf {
			more -= r.Burst()
		}
		r.SetBurstAt(now, burst(limit, most))
		// A larger burst is there at once, as if the limiter had been filled with the new rate for as long as that takes:
		// the push that comes first is not refused by a limit that allows it.
		r.SetLimitAt(now.Add(-time.Duration(min(float64(max(more, 0))/perSecond, mostFilling.Seconds())*float64(time.Second))), rate.Limit(perSecond))
	}
	set(t.rates.requests, l.requestRate, l.requestBurst)
	set(t.rates.ingestion, l.ingestionRate, l.ingestionBurst)
	t.rates.of.Store(&rateKey{l, share})
}

// burst is what a rate allows at once: without a setting, what it allows in a second.
func burst(limit float64, most int) int {
	if most > 0 {
		return most
	}
	return max(1, int(math.Ceil(limit)))
}

// tenants are the states of all tenants that pushed lately.
type tenants struct {
	budget  *budget
	metrics *metrics

	mu   sync.RWMutex // guards byID and made
	byID map[tenant.ID]*tenantState
	made uint16 // tables made, so that the references of two tables of a tenant differ
}

// enter returns the state of id for one push; leave must follow.
func (ts *tenants) enter(id tenant.ID, tick uint32) *tenantState {
	ts.mu.RLock()
	t := ts.byID[id]
	if t != nil {
		t.pushes.Add(1)
	}
	ts.mu.RUnlock()
	if t == nil {
		t = ts.add(id)
	}
	t.seen.Store(tick)
	return t
}

func (ts *tenants) add(id tenant.ID) *tenantState {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t := ts.byID[id]
	if t == nil {
		const stride = 257 // generations of one table come out of use before those of the next
		ts.made++
		t = &tenantState{id: id, table: newTable(ts.budget, ts.made*stride)}
		ts.byID[id] = t
	}
	t.pushes.Add(1)
	return t
}

func (t *tenantState) leave() { t.pushes.Add(-1) }

// all returns the tenants in no order.
func (ts *tenants) all() []*tenantState {
	ts.mu.RLock()
	defer ts.mu.RUnlock()
	list := make([]*tenantState, 0, len(ts.byID))
	for _, t := range ts.byID {
		list = append(list, t)
	}
	return list
}

// sweep forgets idle series and tenants.
func (ts *tenants) sweep(tick uint32) {
	for _, t := range ts.all() {
		ts.metrics.seriesForgotten.Add(float64(t.table.sweep(tick)))
		for _, g := range t.groups.idle(tick) {
			ts.metrics.forgetGroup(string(t.id), g)
		}
		if t.idle(tick) {
			ts.drop(t, tick)
		}
	}
}

func (t *tenantState) idle(tick uint32) bool {
	return t.pushes.Load() == 0 && int32(tick-t.seen.Load()) >= int32(tenantIdle/time.Second)
}

// drop forgets t if no push came meanwhile.
func (ts *tenants) drop(t *tenantState, tick uint32) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if !t.idle(tick) {
		return
	}
	delete(ts.byID, t.id)
	series, _ := t.table.size()
	ts.budget.used.Add(-int64(series))
	ts.budget.give(t.table)
	t.limits.Load().splitter().finish()
	ts.metrics.seriesForgotten.Add(float64(series))
	ts.metrics.forget(string(t.id))
}

// observeLatest keeps the largest timestamp of the tenant.
func (t *tenantState) observeLatest(ms int64) {
	for {
		old := t.latest.Load()
		if ms <= old || t.latest.CompareAndSwap(old, ms) {
			return
		}
	}
}
