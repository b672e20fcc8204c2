package ingest

import (
	"errors"
	"io"
	"math"
	"os"
	"runtime/debug"
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/memory"
)

const (
	// defaultInflightBytes is for a process that knows no memory limit.
	defaultInflightBytes = 1 << 30
	// inflightShare is the part of the memory limit that bodies may take: the rest belongs to what
	// the distributor makes of them.
	inflightShare     = 4
	defaultDeltaBytes = 64 << 20
	defaultDeltaIdle  = 15 * time.Minute
	// defaultBodyBytes is what senders expect to be accepted.
	defaultBodyBytes = 100 << 20
)

// Config is the settings of the write path.
type Config struct {
	// MaxRecvBytes bounds a body, packed and unpacked. It is a setting of the distributor, which
	// its owner copies here.
	MaxRecvBytes int
	Protocols    Protocols
	ReadTimeout  time.Duration
	// InflightBytes bounds the bodies in memory, packed and unpacked. 0 derives it.
	InflightBytes int
	// SkipLabelNames and SkipLabelCount say whether a sender may have these checks left out.
	SkipLabelNames, SkipLabelCount bool
	// Retry is mounted by whoever assembles the settings: its place is the distributor's section.
	Retry RetryConfig
	// Memory is what bodies may take of the memory of the process; its owner sets it. nil: as much as
	// InflightBytes says.
	Memory *memory.Account
}

// Declare adds the settings to s.
func (c *Config) Declare(s *config.Set) {
	s.Bool(&c.SkipLabelNames, "skip_label_name_validation_header_enabled", false,
		"Whether a push with the header X-Mimir-SkipLabelNameValidation: true may use any characters in label names.").Expert()
	s.Bool(&c.SkipLabelCount, "skip_label_count_validation_header_enabled", false,
		"Whether a push with the header X-Mimir-SkipLabelCountValidation: true may have series of any number of labels.").Expert()
	s.Duration(&c.ReadTimeout, "push_read_timeout", 30*time.Second, "How long a client may take to send a push request. 0: no limit.").Expert()
	s.Int(&c.InflightBytes, "max_inflight_push_body_bytes", 0, "Bytes of push requests in memory, compressed and decompressed; more are answered 503. 0: a quarter of the memory limit.").Expert()
}

// Protocols are the settings of protocols other than remote write. They stand in the section of the
// distributor, where whoever assembles the settings declares them.
type Protocols struct {
	// MaxOTLPBytes bounds an OTLP request, packed and unpacked.
	MaxOTLPBytes int
	// MaxDeltaBytes bounds what is kept to add up points of delta temporality, DeltaIdle how long.
	MaxDeltaBytes int
	DeltaIdle     time.Duration
	// Influx says whether the Influx line protocol is taken.
	Influx bool
	// MaxInfluxBytes bounds a request of that protocol, packed and unpacked.
	MaxInfluxBytes int
}

// Declare adds the settings to s.
func (p *Protocols) Declare(s *config.Set) {
	s.Int(&p.MaxOTLPBytes, "max_otlp_request_size", defaultBodyBytes, "Largest OTLP request in bytes, compressed and decompressed.").Expert()
	s.Int(&p.MaxDeltaBytes, "max_otlp_delta_bytes", defaultDeltaBytes, "Memory for the sums of series with delta temporality, about 256 bytes each and 16 for each bucket; further series are refused.").Expert()
	s.Duration(&p.DeltaIdle, "otlp_delta_idle_timeout", defaultDeltaIdle, "How long such a series may be silent before its sum restarts at zero.").Expert()
	s.Bool(&p.Influx, "influx_endpoint_enabled", true, "Whether the Influx line protocol is accepted.").Expert()
	s.Int(&p.MaxInfluxBytes, "max_influx_request_size", defaultBodyBytes, "Largest request of the Influx line protocol in bytes, compressed and decompressed.").Expert()
}

// Validate checks the sizes.
func (p *Protocols) Validate() error {
	if p.MaxOTLPBytes <= 0 || p.MaxInfluxBytes <= 0 {
		return errors.New("settings distributor.max_otlp_request_size and distributor.max_influx_request_size must be positive")
	}
	if p.MaxDeltaBytes < 0 || p.DeltaIdle < time.Minute {
		return errors.New("setting distributor.max_otlp_delta_bytes must not be negative, and distributor.otlp_delta_idle_timeout at least 1m")
	}
	return nil
}

// Validate checks what no single setting can know.
func (c *Config) Validate() error {
	if c.InflightBytes < 0 {
		return errors.New("setting api.max_inflight_push_body_bytes must not be negative")
	}
	return nil
}

func (c *Config) inflightBytes() int64 {
	if c.InflightBytes > 0 {
		return int64(c.InflightBytes)
	}
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		return limit / inflightShare
	}
	return defaultInflightBytes
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
