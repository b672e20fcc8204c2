package bucket

import (
	"context"
	"io"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Cause is what a request to object storage is made for.
type Cause string

// The causes.
const (
	Other      Cause = "other"
	Query      Cause = "query"      // pages and meta files of blocks that queries read
	Index      Cause = "index"      // bucket indexes that queries find blocks by
	Ship       Cause = "ship"       // blocks of ingesters
	Compaction Cause = "compaction" // reading and writing blocks, and planning that
	Cleanup    Cause = "cleanup"    // bucket indexes, retention and deletion
	Import     Cause = "import"     // blocks that clients upload
)

type causeKey struct{}

// Because returns ctx for requests that are made for c.
func Because(ctx context.Context, c Cause) context.Context {
	return context.WithValue(ctx, causeKey{}, c)
}

func causeOf(ctx context.Context) Cause {
	if c, ok := ctx.Value(causeKey{}).(Cause); ok {
		return c
	}
	return Other
}

const (
	// maxAccounts bounds the tenants that have figures of their own in one process.
	maxAccounts = 1000
	// manyTenants stands for all others.
	manyTenants = "__other__"
	// noTenant stands for what is no tenant's, as the listing of all of them.
	noTenant = "__none__"
)

// accounts counts requests by who causes them.
type accounts struct {
	requests, bytes             *prometheus.CounterVec // by operation and cause
	tenantRequests, tenantBytes *prometheus.CounterVec
	prices                      Prices
	cost, tenantCost            *prometheus.CounterVec // by class, and by cause or tenant; nil without prices

	mu    sync.Mutex // guards known
	known map[string]struct{}
}

// Classes of operations by which stores charge. Deletions are free.
const (
	classRead  = "read"
	classWrite = "write"
	classList  = "list"
)

// of returns the class of an operation and the price of one.
func (p Prices) of(operation string) (class string, price float64) {
	switch operation {
	case objstore.OpIter:
		return classList, p.List / 1000
	case objstore.OpUpload:
		return classWrite, p.Write / 1000
	case objstore.OpDelete:
		return "", 0
	default:
		return classRead, p.Read / 1000
	}
}

func newAccounts(reg prometheus.Registerer, prices Prices) *accounts {
	f := promauto.With(reg)
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "objstore_" + name, Help: help}, labels)
	}
	a := &accounts{
		prices:         prices,
		requests:       vec("requests_total", "Requests to object storage by what they are made for. Retries of drivers are not seen.", "operation", "cause"),
		bytes:          vec("transferred_bytes_total", "Bytes read from and written to object storage by what for.", "direction", "cause"),
		tenantRequests: vec("tenant_requests_total", "Requests to object storage by whose objects they are about. At most 1000 tenants have figures of their own.", "operation", "user"),
		tenantBytes:    vec("tenant_transferred_bytes_total", "Bytes read from and written to object storage by whose objects.", "direction", "user"),
		known:          map[string]struct{}{},
	}
	if prices.any() {
		a.cost = vec("estimated_cost_total", "Estimated cost of requests to object storage by class and what they are made for, in the currency of blocks_storage.request_prices. Retries of drivers, parts of large uploads and pages of long listings are not seen.", "class", "cause")
		a.tenantCost = vec("tenant_estimated_cost_total", "Estimated cost of requests to object storage by class and whose objects they are about. At most 1000 tenants have figures of their own.", "class", "user")
	}
	return a
}

// charge counts what a request costs.
func (a *accounts) charge(operation, cause, owner string) {
	if class, price := a.prices.of(operation); price > 0 {
		a.cost.WithLabelValues(class, cause).Add(price)
		a.tenantCost.WithLabelValues(class, owner).Add(price)
	}
}

// owner is the tenant that an object, or a directory, belongs to, as metrics name it.
func (a *accounts) owner(name string) string {
	dir, _, _ := strings.Cut(name, "/")
	if _, err := tenant.Parse(dir); err != nil {
		return noTenant
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.known[dir]; !ok {
		if len(a.known) == maxAccounts {
			return manyTenants
		}
		a.known[dir] = struct{}{}
	}
	return dir
}

// accounted is a bucket whose requests are counted.
type accounted struct {
	objstore.InstrumentedBucket
	a *accounts
}

// note counts a request and returns a counter of its bytes.
func (b *accounted) note(ctx context.Context, operation, direction, name string) func(n int) {
	cause, owner := string(causeOf(ctx)), b.a.owner(name)
	b.a.requests.WithLabelValues(operation, cause).Inc()
	b.a.tenantRequests.WithLabelValues(operation, owner).Inc()
	b.a.charge(operation, cause, owner)
	if direction == "" {
		return nil
	}
	byCause, byOwner := b.a.bytes.WithLabelValues(direction, cause), b.a.tenantBytes.WithLabelValues(direction, owner)
	return func(n int) {
		byCause.Add(float64(n))
		byOwner.Add(float64(n))
	}
}

func (b *accounted) Iter(ctx context.Context, dir string, f func(string) error, options ...objstore.IterOption) error {
	b.note(ctx, objstore.OpIter, "", dir)
	return b.InstrumentedBucket.Iter(ctx, dir, f, options...)
}

func (b *accounted) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error, options ...objstore.IterOption) error {
	b.note(ctx, objstore.OpIter, "", dir)
	return b.InstrumentedBucket.IterWithAttributes(ctx, dir, f, options...)
}

func (b *accounted) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	count := b.note(ctx, objstore.OpGet, "read", name)
	r, err := b.InstrumentedBucket.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	return &countedBody{r, count}, nil
}

func (b *accounted) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	count := b.note(ctx, objstore.OpGetRange, "read", name)
	r, err := b.InstrumentedBucket.GetRange(ctx, name, off, length)
	if err != nil {
		return nil, err
	}
	return &countedBody{r, count}, nil
}

func (b *accounted) Exists(ctx context.Context, name string) (bool, error) {
	b.note(ctx, objstore.OpExists, "", name)
	return b.InstrumentedBucket.Exists(ctx, name)
}

func (b *accounted) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	b.note(ctx, objstore.OpAttributes, "", name)
	return b.InstrumentedBucket.Attributes(ctx, name)
}

// Upload measures r by the type that drivers know it by, so it is not wrapped if its size is known.
func (b *accounted) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	count := b.note(ctx, objstore.OpUpload, "write", name)
	if size, err := objstore.TryToGetSize(r); err == nil {
		count(int(size))
	} else {
		r = io.TeeReader(r, counter(count))
	}
	return b.InstrumentedBucket.Upload(ctx, name, r, opts...)
}

func (b *accounted) Delete(ctx context.Context, name string) error {
	b.note(ctx, objstore.OpDelete, "", name)
	return b.InstrumentedBucket.Delete(ctx, name)
}

// counter is a writer that keeps nothing.
type counter func(n int)

func (c counter) Write(p []byte) (int, error) {
	c(len(p))
	return len(p), nil
}

// countedBody counts what is read.
type countedBody struct {
	io.ReadCloser
	count func(n int)
}

func (c *countedBody) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.count(n)
	return n, err
}
