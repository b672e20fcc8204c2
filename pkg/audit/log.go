package audit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	currentFile  = "current.jsonl"
	batchPattern = "batch-*.jsonl"
	// maxSpillBytes bounds what lies on the disk while the bucket is away; then calls are refused, since
	// what nobody could account for must not be done.
	maxSpillBytes = 512 << 20
	maxBatchBytes = 4 << 20
	maxLineBytes  = 1 << 20
	// maxBatchSpan bounds the time between the first and the last record of a batch, so that one who looks for
	// a time knows from the names of batches which of them may hold it.
	maxBatchSpan  = 5 * time.Minute
	uploadTimeout = 30 * time.Second
)

// Config is the settings of the audit; app mounts it as audit.
type Config struct {
	Enabled  bool
	Dir      string
	Interval time.Duration
	Data     bool
}

// Declare implements config.Declarer.
func (c *Config) Declare(s *config.Set) {
	s.Bool(&c.Enabled, "enabled", true, "Whether calls that read or change the configuration are recorded, when authentication is on.")
	s.String(&c.Dir, "dir", "./data/audit", "Directory where records wait until they are in object storage.").Expert()
	s.Duration(&c.Interval, "upload-interval", 30*time.Second, "How often records are written to object storage.").Expert()
	s.Bool(&c.Data, "data-events", false, "Whether calls that write or read samples are recorded, too.").Expert()
}

// Validate implements config.Validator.
func (c *Config) Validate() error {
	if c.Interval < time.Second {
		return config.Wrong("upload_interval", "is %s, at least 1s is needed", c.Interval)
	}
	return nil
}

// Deps is what a Log needs beside its settings.
type Deps struct {
	Log    *slog.Logger
	Reg    prometheus.Registerer
	Bucket objstore.Bucket
	// Sign authenticates the digest of a batch; nil: the chain alone must do.
	Sign func(digest string) []byte
	// Verify says whether a signature is one of Sign, also of an earlier key. It is needed with Sign.
	Verify func(digest string, signature []byte) bool
	Now    func() time.Time // nil: time.Now
}

// Log keeps records. It is a service, which writes batches while it runs and once more when it stops.
// Write may be called by several goroutines.
type Log struct {
	services.Service
	cfg     Config
	deps    Deps
	records prometheus.Counter
	batches *prometheus.CounterVec
	spilled prometheus.Gauge

	mu     sync.Mutex // guards what follows
	file   *os.File
	size   int64     // of the file
	began  time.Time // when the first record of the file was written
	queued int64     // of the batches that wait

	chain chain // of the goroutine that uploads
}

// New opens the directory; what an earlier process left there is written to the bucket first.
// Errors: Invalid.
func New(cfg Config, deps Deps) (*Log, error) {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	f := promauto.With(deps.Reg)
	l := &Log{
		cfg: cfg, deps: deps,
		records: f.NewCounter(prometheus.CounterOpts{Name: "amphora_audit_records_total", Help: "Audit records written."}),
		batches: f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_audit_batches_total", Help: "Batches of audit records by result. Failures: object storage is away, records wait on the disk."}, []string{"result"}),
		spilled: f.NewGauge(prometheus.GaugeOpts{Name: "amphora_audit_waiting_bytes", Help: "Audit records on the disk that are not in object storage yet."}),
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, errs.New(errs.Invalid, "make the directory of audit records: %w", err)
	}
	var err error
	if l.chain, err = openChain(cfg.Dir); err != nil {
		return nil, err
	}
	if err := l.open(); err != nil {
		return nil, err
	}
	if err := l.rotate(); err != nil { // what a process left that was killed is a batch of its own
		return nil, err
	}
	l.Service = services.NewTimerService(cfg.Interval, nil, l.tick, l.stopping)
	return l, nil
}

// open continues the current file and measures what waits. It needs l.mu, or to be alone.
func (l *Log) open() error {
	f, err := os.OpenFile(filepath.Join(l.cfg.Dir, currentFile), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return errs.New(errs.Invalid, "open the file of audit records: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return errs.New(errs.Invalid, "open the file of audit records: %w", err)
	}
	if l.file, l.size = f, info.Size(); l.size > 0 { // a line that a crash cut ends here, so that the next is whole
		if _, err := f.WriteString("\n"); err != nil {
			return errs.New(errs.Invalid, "continue the file of audit records: %w", err)
		}
		l.size++
	}
	for _, name := range l.waiting() {
		if info, err := os.Stat(name); err == nil {
			l.queued += info.Size()
		}
	}
	l.spilled.Set(float64(l.queued + l.size))
	return nil
}

// waiting are the files to be written to the bucket, the oldest first.
func (l *Log) waiting() []string {
	names, _ := filepath.Glob(filepath.Join(l.cfg.Dir, batchPattern)) // the pattern is right
	slices.Sort(names)
	return names
}

// Room says whether records can be kept. Errors: Unavailable.
func (l *Log) Room() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.queued+l.size > maxSpillBytes {
		return errs.New(errs.Unavailable, "audit records cannot be kept: object storage was away for too long")
	}
	return nil
}

// Write returns when r is on the disk. Errors: Unavailable, then r is not recorded.
func (l *Log) Write(r *Record) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode an audit record: %w", err)
	}
	if len(line) >= maxLineBytes {
		r.RequestParameters, r.ResponseElements = nil, nil
		if line, err = json.Marshal(r); err != nil {
			return fmt.Errorf("encode an audit record: %w", err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return errs.New(errs.Unavailable, "audit records are not taken any more, the process is stopping")
	}
	now := l.deps.Now()
	if l.size > 0 && now.Sub(l.began) > maxBatchSpan {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	if l.size == 0 {
		l.began = now
	}
	if _, err = l.file.Write(append(line, '\n')); err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		return errs.New(errs.Unavailable, "audit record not written: %w", err)
	}
	l.size += int64(len(line)) + 1
	l.spilled.Set(float64(l.queued + l.size))
	l.records.Inc()
	if l.size > maxBatchBytes {
		return l.rotate()
	}
	return nil
}

// rotate ends the current file. It needs l.mu.
func (l *Log) rotate() error {
	if l.size == 0 || l.file == nil {
		return nil
	}
	var name string
	for at := l.deps.Now().UnixNano(); ; at++ { // an earlier batch must not be replaced, whatever the clock says
		name = filepath.Join(l.cfg.Dir, fmt.Sprintf("batch-%020d.jsonl", at))
		if _, err := os.Lstat(name); os.IsNotExist(err) {
			break
		}
	}
	if err := os.Rename(l.file.Name(), name); err != nil {
		return errs.New(errs.Unavailable, "end a batch of audit records: %w", err)
	}
	old := l.file
	l.queued, l.size, l.file = 0, 0, nil
	err := old.Close()
	return errors.Join(err, l.open())
}

// tick writes what waits. What fails is tried again next time.
func (l *Log) tick(ctx context.Context) error {
	l.mu.Lock()
	err := l.rotate()
	l.mu.Unlock()
	if err == nil {
		err = l.upload(ctx)
	}
	if err != nil && ctx.Err() == nil {
		l.deps.Log.Warn("audit records not in object storage yet, they wait on the disk", "err", err)
	}
	return nil
}

func (l *Log) stopping(error) error {
	ctx, cancel := context.WithTimeout(context.Background(), uploadTimeout)
	defer cancel()
	err := l.tick(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		err = errors.Join(err, l.file.Close())
		l.file = nil
	}
	return err
}

// upload writes every batch that waits, in order.
func (l *Log) upload(ctx context.Context) error {
	for _, name := range l.waiting() {
		data, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("read audit records: %w", err)
		}
		records := lines(data)
		if len(records) > 0 {
			if err := l.put(ctx, records); err != nil {
				l.batches.WithLabelValues("failure").Inc()
				return err
			}
			l.batches.WithLabelValues("success").Inc()
		}
		if err := os.Remove(name); err != nil {
			return fmt.Errorf("remove audit records that are in object storage: %w", err)
		}
		l.mu.Lock()
		l.queued = max(0, l.queued-int64(len(data)))
		l.spilled.Set(float64(l.queued + l.size))
		l.mu.Unlock()
	}
	return nil
}

// lines returns the whole records of a file; one that a crash cut is left out.
func lines(data []byte) []json.RawMessage {
	var out []json.RawMessage
	s := bufio.NewScanner(bytes.NewReader(data))
	s.Buffer(nil, maxLineBytes+1)
	for s.Scan() {
		if line := bytes.Clone(s.Bytes()); json.Valid(line) && len(line) > 0 {
			out = append(out, line)
		}
	}
	return out
}
