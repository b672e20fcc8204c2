package limits

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/config/strict"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// RuntimeConfig of the runtime overrides.
type RuntimeConfig struct {
	Files  []string
	Period time.Duration
}

// Declare is part of config.Declarer; mount it as "runtime_config".
func (c *RuntimeConfig) Declare(s *config.Set) {
	s.Strings(&c.Files, "file", nil, "YAML files with per-tenant limits, reloaded while running; later files win. Files whose names end in .gz are decompressed.")
	s.Duration(&c.Period, "period", 10*time.Second, "How often the files are checked for changes.").Named("runtime-config.reload-period").Expert()
}

// Validate is part of config.Validator.
func (c *RuntimeConfig) Validate() error {
	if c.Period < time.Second {
		return config.Wrong("period", "must be at least 1s, is %s", config.FormatDuration(c.Period))
	}
	return nil
}

// Overrides answers what a tenant's limits are: the defaults, changed by what the runtime files
// say about the tenant. It is a service: starting reads the files and fails if one is bad,
// running reads them again whenever one changed. While running, a bad file leaves the older limits
// in force. (dskit's runtime configuration merges files before they are parsed and so loses the
// line of a mistake; this loop keeps it.)
type Overrides struct {
	services.Service

	cfg      RuntimeConfig
	defaults *Defaults
	env      func(string) string
	log      *slog.Logger
	metrics  *metrics

	state atomic.Pointer[state]

	loading sync.Mutex        // held while files and overlay are read and put in force
	loaded  [sha256.Size]byte // hash of what is in force
	overlay source

	lastErr string // of the last try, "" if it went well; of the service's goroutine alone
}

// state is what is in force. It is never changed, only replaced.
type state struct {
	base    View
	tenants map[tenant.ID]View
	file    *runtimeFile
}

// Deps is what Overrides needs from the process.
type Deps struct {
	Log *slog.Logger
	Reg prometheus.Registerer
	Env func(string) string // for ${VAR} in the files; nil leaves it as text
}

// NewOverrides returns the limits of all tenants; until the service is started they are the
// defaults. The zero Defaults are those of the table, and without files the service only waits.
func NewOverrides(defaults *Defaults, cfg RuntimeConfig, deps Deps) *Overrides {
	o := &Overrides{cfg: cfg, defaults: defaults, env: deps.Env, log: deps.Log}
	if o.log == nil {
		o.log = slog.New(slog.DiscardHandler)
	}
	if len(cfg.Files) > 0 {
		o.metrics = newMetrics(deps.Reg)
	}
	o.state.Store(&state{base: defaults.view(1), file: newRuntimeFile()})
	o.Service = services.NewBasicService(o.starting, o.running, nil)
	return o
}

// Overlay puts the overrides in data, a runtime file that comes from the place name, in force over
// those of the files. What an earlier call said is replaced. Errors: Invalid, and then the earlier
// one stays.
func (o *Overrides) Overlay(name string, data []byte) error {
	o.loading.Lock()
	defer o.loading.Unlock()
	before := o.overlay
	o.overlay = source{name, data}
	if err := o.reload(); err != nil {
		o.overlay = before
		return err
	}
	return nil
}

// Check says what is wrong with data, a runtime file that comes from the place name. Errors: Invalid.
func Check(name string, data []byte) error {
	problems := new(strict.Problems)
	parseFile(newRuntimeFile(), name, data, nil, problems)
	return problems.Err()
}

// source is a text of overrides and where it comes from.
type source struct {
	name string
	data []byte
}

// For returns the limits of a tenant. It takes no lock and does not allocate.
func (o *Overrides) For(id tenant.ID) View {
	s := o.state.Load()
	if v, ok := s.tenants[id]; ok {
		return v
	}
	return s.base
}

// Defaults returns the limits of a tenant without overrides.
func (o *Overrides) Defaults() View { return o.state.Load().base }

// Has says whether there are overrides of a tenant, even if they change nothing.
func (o *Overrides) Has(id tenant.ID) bool {
	_, ok := o.state.Load().tenants[id]
	return ok
}

// Tenants returns the tenants that have overrides, sorted.
func (o *Overrides) Tenants() []tenant.ID { return o.state.Load().ids() }

func (s *state) ids() []tenant.ID {
	out := make([]tenant.ID, 0, len(s.tenants))
	for id := range s.tenants {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// IngesterLimits returns base, the configured limits of an ingester, changed by the runtime files.
func (o *Overrides) IngesterLimits(base InstanceLimits) InstanceLimits {
	return o.state.Load().file.ingester.apply(base)
}

// DistributorLimits returns base, the configured limits of a distributor, changed by the runtime
// files.
func (o *Overrides) DistributorLimits(base InstanceLimits) InstanceLimits {
	return o.state.Load().file.distributor.apply(base)
}

func (o *Overrides) starting(context.Context) error {
	if len(o.cfg.Files) == 0 {
		return nil
	}
	o.loading.Lock()
	defer o.loading.Unlock()
	if err := o.reload(); err != nil {
		return fmt.Errorf("read runtime configuration: %w", err)
	}
	return nil
}

func (o *Overrides) running(ctx context.Context) error {
	if len(o.cfg.Files) == 0 {
		<-ctx.Done()
		return nil
	}
	ticker := time.NewTicker(o.cfg.Period)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		o.loading.Lock()
		err := o.reload()
		o.loading.Unlock()
		switch {
		case err == nil:
			o.lastErr = ""
		case err.Error() != o.lastErr: // the same mistake is told once
			o.lastErr = err.Error()
			o.log.Error("runtime configuration not reloaded, the older one stays in force", "err", err)
		}
	}
}

// reload reads the files and, if they or the overlay say something new, puts it in force.
func (o *Overrides) reload() (err error) {
	defer func() {
		if o.metrics == nil {
			return
		}
		if err != nil {
			o.metrics.success.Set(0)
			return
		}
		o.metrics.success.Set(1)
	}()
	texts := make([]source, 0, len(o.cfg.Files)+1)
	for _, name := range o.cfg.Files {
		data, err := readBounded(name)
		if err != nil {
			return err
		}
		texts = append(texts, source{name, data})
	}
	if len(o.overlay.data) > 0 {
		texts = append(texts, o.overlay)
	}
	hash := sha256.New()
	for _, t := range texts {
		// The length keeps apart what two files hold.
		hash.Write(binary.BigEndian.AppendUint64(nil, uint64(len(t.data))))
		hash.Write(t.data)
	}
	sum := [sha256.Size]byte(hash.Sum(nil))
	if sum == o.loaded {
		return nil
	}
	file, problems := newRuntimeFile(), new(strict.Problems)
	for _, t := range texts {
		env := o.env
		if t.name == o.overlay.name {
			env = nil // who writes it may not read the environment of the process
		}
		parseFile(file, t.name, t.data, env, problems)
	}
	if err := problems.Err(); err != nil {
		return err
	}
	o.put(file)
	o.loaded = sum
	if o.metrics != nil {
		o.metrics.hash.Reset()
		o.metrics.hash.WithLabelValues(hex.EncodeToString(sum[:])).Set(1)
	}
	return nil
}

// put makes file the one in force, under a new epoch if it means something new.
func (o *Overrides) put(file *runtimeFile) {
	old := o.state.Load()
	if file.equal(old.file) {
		return
	}
	next := &state{base: o.defaults.view(old.base.epoch + 1), tenants: make(map[tenant.ID]View, len(file.tenants)), file: file}
	shared := map[string]View{} // tenants of one plan have one set of values
	for id, changes := range file.tenants {
		var key strings.Builder
		for _, c := range changes {
			fmt.Fprintf(&key, "%d=%q ", c.row, format(c.value))
		}
		v, ok := shared[key.String()]
		if !ok {
			v = View{over: slices.Clone(next.base.over), epoch: next.base.epoch}
			for _, c := range changes {
				v.over[c.row] = c.value
			}
			shared[key.String()] = v
		}
		next.tenants[id] = v
	}
	o.state.Store(next)
	o.log.Info("runtime configuration loaded", "files", o.cfg.Files, "tenants", len(file.tenants), "epoch", next.base.epoch)
}
