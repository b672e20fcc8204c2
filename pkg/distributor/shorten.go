package distributor

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// What is done with label values that are too long.
const (
	refuseLong   = "error"
	truncateLong = "truncate"
	dropLong     = "drop"
)

const (
	// hashedBytes is the length of what stands for the text that was left out: so different values
	// stay different, and the same value becomes the same in every process and version.
	hashedBytes = len("(hash:)") + 2*hashBytes
	hashBytes   = 16
)

// shortening says how label values that are too long are shortened. The zero value says not at all.
type shortening struct {
	how  string
	most int // bytes
}

// readShortening reads how the tenant's label values are shortened. A limit that leaves no room for the
// hash refuses them all the same.
func readShortening(v limits.View) shortening {
	how, most := limits.LabelValueLengthOverLimitStrategy.Of(v), limits.MaxLabelValueLength.Of(v)
	if how == refuseLong || most < hashedBytes {
		return shortening{}
	}
	return shortening{how, most}
}

func (s shortening) on() bool { return s.how != "" }

// shorten returns what a value over the limit is stored as.
func (s shortening) shorten(value []byte) []byte {
	sum := sha256.Sum256(value)
	keep := 0
	if s.how == truncateLong {
		for keep = s.most - hashedBytes; keep > 0 && !utf8.RuneStart(value[keep]); keep-- {
		}
	}
	out := append(make([]byte, 0, keep+hashedBytes), value[:keep]...)
	out = append(out, "(hash:"...)
	out = hex.AppendEncode(out, sum[:hashBytes])
	return append(out, ')')
}

// shortenValues shortens the values in ls that are too long. Metric names are never shortened: under another name nobody would find the series. What is not
// text stays, for which the series is refused.
func (p *push) shortenValues(ls []remotewrite.Label) {
	p.shortened = p.shortened[:0]
	s := p.lim.shorten
	if !s.on() {
		return
	}
	for i := range ls {
		if v := ls[i].Value; len(v) > s.most && string(ls[i].Name) != metricName && utf8.Valid(v) {
			ls[i].Value = s.shorten(v)
			p.shortened = append(p.shortened, ls[i].Name)
		}
	}
}

// noteShortened counts the values of a series that shape just shortened.
func (p *push) noteShortened(ls []remotewrite.Label) {
	if len(p.shortened) == 0 {
		return
	}
	m := p.d.metrics.truncatedValues
	if p.lim.shorten.how == dropLong {
		m = p.d.metrics.droppedValues
	}
	m.WithLabelValues(string(p.t.id)).Add(float64(len(p.shortened)))
	for _, name := range p.shortened {
		p.d.shortened.add(shortenedLabel{p.t.id, clip(nameOf(ls)), clip(name)}, p.lim.shorten)
	}
}

const (
	// maxShortenedLabels bounds the metrics and labels that are remembered until they are logged.
	maxShortenedLabels = 1000

	// maxShortenedLines bounds the warnings of one time.
	maxShortenedLines = 20

	// shortenedPeriod is how often shortened values are logged.
	shortenedPeriod = time.Minute
)

// shortenedLabel is a label of a metric of which values were shortened.
type shortenedLabel struct {
	tenant        tenant.ID
	metric, label string
}

type shortenedCount struct {
	series int
	how    shortening
}

// shortenedValues gathers what is logged together: one warning for each label of a metric, and not
// one for each series.
type shortenedValues struct {
	mu     sync.Mutex // guards all below
	counts map[shortenedLabel]shortenedCount
	others int       // series of labels beyond the bound
	logged time.Time // when
}

func (s *shortenedValues) add(l shortenedLabel, how shortening) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.counts[l]
	if !ok && len(s.counts) >= maxShortenedLabels {
		s.others++
		return
	}
	if s.counts == nil {
		s.counts = map[shortenedLabel]shortenedCount{}
	}
	s.counts[l] = shortenedCount{c.series + 1, how}
}

// log writes what was gathered, if it is time.
func (s *shortenedValues) log(to *slog.Logger, now time.Time) {
	s.mu.Lock()
	counts, others := s.counts, s.others
	if len(counts) == 0 || now.Sub(s.logged) < shortenedPeriod {
		s.mu.Unlock()
		return
	}
	s.counts, s.others, s.logged = nil, 0, now
	s.mu.Unlock()
	lines := 0
	for l, c := range counts {
		if lines++; lines > maxShortenedLines {
			others += c.series
			continue
		}
		to.Warn("label values over the limit shortened", "tenant", l.tenant, "metric", l.metric, "label", l.label,
			"new_series", c.series, "limit_bytes", c.how.most, "strategy", c.how.how)
	}
	if others > 0 {
		to.Warn("label values of more labels shortened", "new_series", others)
	}
}
