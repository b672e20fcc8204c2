// Package results owns the results cache of frontends: which time ranges of an answer are still
// valid, how answers are encoded, and where they are kept. It holds nothing that may not be lost.
package results

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Store keeps items for a time. It may lose any of them, and returns none that it was not given.
type Store interface {
	Get(ctx context.Context, key string) ([]byte, bool)
	Set(key string, item []byte, ttl time.Duration)
}

// Kind is what an item is the answer to.
type Kind string

// The kinds.
const (
	Range       Kind = "query_range"
	Instant     Kind = "query"
	Labels      Kind = "label_names_and_values"
	Cardinality Kind = "cardinality"
	Failure     Kind = "error"
)

// Skipped says why an answer was not looked for, or not kept.
type Skipped string

// The reasons.
const (
	AskedNotTo  Skipped = "no-store"           // by the request
	TooNew      Skipped = "too-new"            // all of it is younger than what is kept
	NotFixed    Skipped = "depends-on-the-end" // the same time has another answer in another query
	TooLarge    Skipped = "too-large"
	ChangesGone Skipped = "changes-unknown" // nobody could say whether what is kept still holds
)

// Cache keeps answers in a Store. A nil Cache keeps none.
type Cache struct {
	store   Store
	most    int // bytes of an item
	metrics *metrics
}

// New returns a cache over store that keeps items of at most the given bytes.
func New(store Store, most int, reg prometheus.Registerer) *Cache {
	return &Cache{store: store, most: most, metrics: newMetrics(reg)}
}

// Key returns the name of an item that is the answer to parts. Different parts never have the same.
func Key(k Kind, parts ...string) string {
	h := sha256.New()
	var n [8]byte
	for _, p := range append(parts, string(k)) {
		binary.LittleEndian.PutUint64(n[:], uint64(len(p)))
		_, _ = h.Write(n[:]) // it never fails
		_, _ = h.Write([]byte(p))
	}
	var b strings.Builder
	b.WriteString("ampr1:")
	b.WriteString(base64.RawURLEncoding.EncodeToString(h.Sum(nil)))
	return b.String()
}

// Get returns an item.
func (c *Cache) Get(ctx context.Context, key string) ([]byte, bool) {
	if c == nil {
		return nil, false
	}
	return c.store.Get(ctx, key)
}

// Set keeps an item for ttl, if it is not too large.
func (c *Cache) Set(key string, item []byte, ttl time.Duration) {
	switch {
	case c == nil || ttl <= 0:
	case len(item) > c.most:
		c.Skip(TooLarge)
	default:
		c.metrics.stored.Add(float64(len(item)))
		c.store.Set(key, item, ttl)
	}
}

// Most is how many bytes an item may have.
func (c *Cache) Most() int { return c.most }

// Asked counts an answer that was looked for, and what part of it was there, from 0 to 1.
func (c *Cache) Asked(k Kind, part float64) {
	if c == nil {
		return
	}
	c.metrics.requests.WithLabelValues(string(k)).Inc()
	if part >= 1 {
		c.metrics.hits.WithLabelValues(string(k)).Inc()
	} else if part > 0 {
		c.metrics.partial.WithLabelValues(string(k)).Inc()
	}
}

// Skip counts an answer that is not kept.
func (c *Cache) Skip(why Skipped) {
	if c != nil {
		c.metrics.skipped.WithLabelValues(string(why)).Inc()
	}
}

// Outdated counts stretches of kept answers of which the data became others.
func (c *Cache) Outdated(n int) {
	if c != nil && n > 0 {
		c.metrics.outdated.Add(float64(n))
	}
}

// Damaged counts an item that could not be read.
func (c *Cache) Damaged() { c.metrics.damaged.Inc() }

type metrics struct {
	requests, hits, partial, skipped *prometheus.CounterVec
	outdated, damaged, stored        prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	vec := func(name, help, label string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_frontend_query_result_cache_" + name, Help: help}, []string{label})
	}
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "amphora_frontend_query_result_cache_" + name, Help: help})
	}
	return &metrics{
		requests: vec("requests_total", "Answers that were looked for in the results cache; of a query one for each part that it is split into.", "request_type"),
		hits:     vec("hits_total", "Answers of which all was there.", "request_type"),
		partial:  vec("partial_hits_total", "Answers of which a part was there, so that only the rest was asked for.", "request_type"),
		skipped:  vec("skipped_total", "Answers that were not looked for or not kept.", "reason"),
		outdated: counter("outdated_total", "Stretches of kept answers that were not given because their samples had become others: late samples, deletions, uploads. A rise means senders that come late."),
		damaged:  counter("damaged_items_total", "Items that could not be read and were not used. A rise means that another program writes to the cache, or that its memory is faulty."),
		stored:   counter("stored_bytes_total", "Bytes of the items that were kept."),
	}
}
