// Package pagecache owns the caches that store-gateways share: pages of blocks in memcached, or in
// the memory of all gateways together. They save requests to object storage and never change an
// answer: an item that is missing, late, damaged or that belongs to something else is a miss, and a
// server that fails is avoided for a while.
package pagecache

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-kit/log"
	"github.com/grafana/dskit/cache"
	"github.com/grafana/dskit/crypto/tls"
	"github.com/grafana/dskit/flagext"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/amphora-metrics/amphora/pkg/config"
)

const (
	// itemBytes is what one item holds of an object.
	itemBytes = 64 << 10
	// askItems is how many items are asked for at once, and so held in memory: 1 MiB.
	askItems = 16
	// ttl is how long items are wanted. Blocks never change; this is for those that are gone.
	ttl = 7 * 24 * time.Hour
	// pause is how long a cache that failed is not asked, and given nothing.
	pause = 5 * time.Second
	// mostQueuedBytes is about how much waits in memory to be written while the server is slow, and
	// mostWriters how many items are on their way at the same time: what is more is not kept.
	mostQueuedBytes = 32 << 20
	mostWriters     = 16
)

// PageBytes is the size of the items that Range keeps.
const PageBytes = itemBytes

// The backends that are shared: Memcached is a server of its own, Cluster the store-gateways themselves.
const (
	Memcached = "memcached"
	Cluster   = "cluster"
)

// Config is the settings of one cache.
type Config struct {
	Backend        string
	Addresses      []string
	Timeout        time.Duration
	ConnectTimeout time.Duration
	MaxIdle        int
	TLS            bool
	TLSCAPath      string
	TLSMinVersion  string
	TLSSuites      []string
}

// Declare names each setting once.
func (c *Config) Declare(s *config.Set) {
	s.String(&c.Backend, "backend", "", "Cache that all store-gateways share, beside the one on each one's disk: cluster (in their own memory) or memcached. Empty: none.").OneOf("", "inmemory", Memcached, Cluster).Expert()
	c.DeclareServers(s)
}

// DeclareServers names the settings beside the backend.
func (c *Config) DeclareServers(s *config.Set) {
	s.Strings(&c.Addresses, "memcached.addresses", nil, "Addresses as host:port, dns+host:port or dnssrv+name, separated by commas.").Expert()
	s.Duration(&c.Timeout, "memcached.timeout", 200*time.Millisecond, "How long one read or write may take.").Expert()
	s.Duration(&c.ConnectTimeout, "memcached.connect-timeout", 200*time.Millisecond, "How long connecting may take.").Expert()
	s.Int(&c.MaxIdle, "memcached.max-idle-connections", 100, "Idle connections kept open to each server.").Expert()
	s.Bool(&c.TLS, "memcached.tls-enabled", false, "Whether to connect with TLS.").Expert()
	s.String(&c.TLSCAPath, "memcached.tls-ca-path", "", "File with CA certificates to verify those of the servers. Empty: those of the system.").Expert()
	s.String(&c.TLSMinVersion, "memcached.tls-min-version", "", "Minimum TLS version: VersionTLS12, the default, or VersionTLS13.").OneOf("", "VersionTLS12", "VersionTLS13").Expert()
	s.Strings(&c.TLSSuites, "memcached.tls-cipher-suites", nil, "TLS 1.2 cipher suites to offer, by their IANA names. Empty: the secure ones.").Expert()
}

// Validate refuses what cannot work.
func (c *Config) Validate() error {
	if c.Backend == Memcached && len(c.Addresses) == 0 {
		return config.Wrong("memcached.addresses", "is empty; the backend %s needs one address or more", Memcached)
	}
	return nil
}

// Cache is a shared cache. A nil Cache has nothing and keeps nothing.
type Cache struct {
	items   cache.Cache
	now     func() time.Time
	resumes atomic.Int64 // when the cache is asked again, in nanoseconds since the epoch

	hits, misses, damaged, failures prometheus.Counter
}

// Open returns the cache in memcached that c names, nil if it names none, for items of about the given bytes at most.
// The caller closes it. No server needs to be there.
func Open(c Config, name string, item int, logger log.Logger, reg prometheus.Registerer) (*Cache, error) {
	if c.Backend != Memcached {
		return nil, nil //nolint:nilnil // No cache is a working cache.
	}
	var m cache.MemcachedClientConfig
	flagext.DefaultValues(flags{&m})
	m.Addresses, m.Timeout, m.ConnectTimeout, m.MaxIdleConnections = c.Addresses, c.Timeout, c.ConnectTimeout, c.MaxIdle
	m.TLSEnabled, m.TLS = c.TLS, tls.ClientConfig{CAPath: c.TLSCAPath, MinVersion: c.TLSMinVersion, CipherSuites: strings.Join(c.TLSSuites, ",")}
	m.MaxAsyncConcurrency, m.MaxAsyncBufferSize = mostWriters, max(mostWriters, mostQueuedBytes/item)
	items, err := cache.NewMemcachedClientWithConfig(logger, name, m, reg)
	if err != nil {
		return nil, fmt.Errorf("open the cache %s: %w", name, err)
	}
	return New(items, name, reg), nil
}

// flags gives the client's settings the shape by which they get their defaults.
type flags struct{ *cache.MemcachedClientConfig }

// RegisterFlags is part of flagext.Registerer.
func (f flags) RegisterFlags(set *flag.FlagSet) { f.RegisterFlagsWithPrefix("", set) }

// New returns a cache over items.
func New(items cache.Cache, name string, reg prometheus.Registerer) *Cache {
	f := promauto.With(prometheus.WrapRegistererWith(prometheus.Labels{"cache": name}, reg))
	counter := func(what, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "amphora_bucket_store_shared_cache_" + what, Help: help})
	}
	return &Cache{items: items, now: time.Now,
		hits:     counter("hits_total", "Items of 64 KiB that were in the shared cache."),
		misses:   counter("misses_total", "Items that were not."),
		damaged:  counter("damaged_items_total", "Items that were damaged or of something else, and not used. A rise means that another program writes to the cache, or that its memory is faulty."),
		failures: counter("failures_total", "Times that the cache did not answer. It is then not asked for 5 seconds."),
	}
}

// Close ends the connections.
func (c *Cache) Close() error {
	if c != nil {
		c.items.Stop()
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal returns an item for data: a checksum of what it is and of its bytes stands before them.
func seal(key string, data []byte) []byte {
	out := make([]byte, 4, 4+len(data))
	binary.LittleEndian.PutUint32(out, checksum(key, data))
	return append(out, data...)
}

// unseal returns the data of an item; false if it is not what was put under key.
func unseal(key string, item []byte, length int) ([]byte, bool) {
	if len(item) < 4 || len(item) != 4+length || binary.LittleEndian.Uint32(item) != checksum(key, item[4:]) {
		return nil, false
	}
	return item[4:], true
}

func checksum(key string, data []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(key), castagnoli), castagnoli, data)
}

// get returns the items that are there, of which sizes says how long each must be.
func (c *Cache) get(ctx context.Context, keys []string, sizes []int) map[string][]byte {
	if c.now().UnixNano() < c.resumes.Load() {
		c.misses.Add(float64(len(keys)))
		return nil
	}
	found, err := c.items.GetMultiWithError(ctx, keys)
	if err != nil && ctx.Err() == nil {
		c.failures.Inc()
		c.resumes.Store(c.now().Add(pause).UnixNano())
	}
	out := make(map[string][]byte, len(found))
	for i, key := range keys {
		item, ok := found[key]
		if !ok {
			continue
		}
		if data, ok := unseal(key, item, sizes[i]); ok {
			out[key] = data
		} else {
			c.damaged.Inc()
		}
	}
	c.hits.Add(float64(len(out)))
	c.misses.Add(float64(len(keys) - len(out)))
	return out
}

// Fetch reads a stretch of an object of the bucket.
type Fetch func(ctx context.Context, name string, off, length int64) (io.ReadCloser, error)

// Range returns a stretch of an object of the given size, from the cache as far as it is there, the
// rest by fetch. Whole items must be asked for: off is a multiple of 64 KiB, and so is the end unless
// it is that of the object. Otherwise all is fetched.
func (c *Cache) Range(ctx context.Context, name string, off, length int64, fetch Fetch) (io.ReadCloser, error) {
	if c == nil || off%itemBytes != 0 || length == 0 {
		return fetch(ctx, name, off, length)
	}
	return &stretch{ctx: ctx, c: c, name: name, at: off, end: off + length, fetch: fetch}, nil
}

// stretch reads from the cache and from the bucket.
type stretch struct {
	ctx     context.Context //nolint:containedctx // A reader has no other way to get it.
	c       *Cache
	name    string
	at, end int64 // of what is not in left
	fetch   Fetch

	left   []byte            // of the current item
	ahead  map[string][]byte // items that were found from at on
	upto   int64             // where ahead ends
	stream io.ReadCloser     // of the bucket, from at on
	until  int64             // where stream ends
}

func key(name string, at int64) string { return fmt.Sprintf("amp1:%s:%d", name, at/itemBytes) }

func (s *stretch) Read(p []byte) (int, error) {
	for len(s.left) == 0 {
		if s.at == s.end {
			return 0, io.EOF
		}
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.left)
	s.left = s.left[n:]
	return n, nil
}

// next makes the item at at the current one.
func (s *stretch) next() error {
	size := int(min(itemBytes, s.end-s.at))
	if s.stream == nil && s.at >= s.upto {
		s.ask()
	}
	k := key(s.name, s.at)
	if data := s.ahead[k]; data != nil && s.stream == nil {
		s.left, s.at = data, s.at+int64(size)
		return nil
	}
	if s.stream == nil {
		if err := s.open(); err != nil {
			return err
		}
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(s.stream, data); err != nil {
		return fmt.Errorf("read %s at byte %d: %w", s.name, s.at, err)
	}
	s.c.Set(k, data, ttl)
	s.left, s.at = data, s.at+int64(size)
	if s.at == s.until {
		return s.endStream()
	}
	return nil
}

// ask looks for the next items.
func (s *stretch) ask() {
	var keys []string
	var sizes []int
	for at := s.at; at < s.end && len(keys) < askItems; at += itemBytes {
		keys, sizes = append(keys, key(s.name, at)), append(sizes, int(min(itemBytes, s.end-at)))
	}
	s.ahead = s.c.get(s.ctx, keys, sizes)
	s.upto = min(s.end, s.at+int64(len(keys))*itemBytes)
	if len(s.ahead) == 0 {
		s.upto = s.end // the rest will not be there either, and one request is better than many
	}
}

// open requests what is missing from at on.
func (s *stretch) open() error {
	s.until = s.at
	for s.until < s.upto && s.ahead[key(s.name, s.until)] == nil {
		s.until = min(s.upto, s.until+itemBytes)
	}
	var err error
	s.stream, err = s.fetch(s.ctx, s.name, s.at, s.until-s.at)
	return err
}

func (s *stretch) endStream() error {
	err := s.stream.Close()
	s.stream = nil
	return err
}

// Close ends a request that is under way.
func (s *stretch) Close() error {
	if s.stream == nil {
		return nil
	}
	return s.endStream()
}

// Object returns a small object, from the cache or by fetch. It is for objects that never change.
func (c *Cache) Object(ctx context.Context, name string, fetch func() ([]byte, error)) ([]byte, error) {
	if c == nil {
		return fetch()
	}
	k := key(name, 0)
	if c.now().UnixNano() >= c.resumes.Load() {
		found, err := c.items.GetMultiWithError(ctx, []string{k})
		if err != nil && ctx.Err() == nil {
			c.failures.Inc()
			c.resumes.Store(c.now().Add(pause).UnixNano())
		}
		if item := found[k]; len(item) > 4 {
			if data, ok := unseal(k, item, len(item)-4); ok {
				c.hits.Inc()
				return data, nil
			}
			c.damaged.Inc()
		}
	}
	c.misses.Inc()
	data, err := fetch()
	if err == nil && len(data) > 0 {
		c.Set(k, data, ttl)
	}
	return data, err
}

// Get returns an item that Set was given under key.
func (c *Cache) Get(ctx context.Context, key string) ([]byte, bool) {
	if c == nil || c.now().UnixNano() < c.resumes.Load() {
		return nil, false
	}
	found, err := c.items.GetMultiWithError(ctx, []string{key})
	if err != nil && ctx.Err() == nil {
		c.failures.Inc()
		c.resumes.Store(c.now().Add(pause).UnixNano())
	}
	item, ok := found[key]
	if !ok {
		c.misses.Inc()
		return nil, false
	}
	data, ok := unseal(key, item, len(item)-4)
	if !ok {
		c.damaged.Inc()
		return nil, false
	}
	c.hits.Inc()
	return data, true
}

// Set keeps data under key for ttl, if the server has room and keeps up. It does not wait.
func (c *Cache) Set(key string, data []byte, ttl time.Duration) {
	if c != nil && c.now().UnixNano() >= c.resumes.Load() {
		c.items.SetAsync(key, seal(key, data), ttl)
	}
}
