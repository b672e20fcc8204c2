package work

import (
	"context"
	"net/http"
	"slices"
	"strings"
)

// The headers by which a request says how it is to be read, with the names that clients of Mimir know.
const (
	FilterHeader      = "X-Filter-Queryables"
	ConsistencyHeader = "X-Read-Consistency"
)

// WantsTiming says whether a request asks for the header Server-Timing.
func WantsTiming(h http.Header) bool {
	return h.Get("X-Amphora-Response-Query-Stats") == "true" || h.Get("X-Mimir-Response-Query-Stats") == "true"
}

// PartialHeader asks, with true, that a read of several tenants answers with those that can be read. The
// answer has a warning for each of the others; requests whose answers have no place for one are not
// answered in part.
const PartialHeader = "X-Amphora-Partial-Data"

// The places that FilterHeader names.
const (
	Ingesters     = "ingester"
	StoreGateways = "store-gateway"
)

// Reading says where work reads, and how new that must be.
type Reading struct {
	// Only names the places that are asked, separated by commas; empty: all. Queriers follow it where
	// that is switched on.
	Only string
	// Latest is set if blocks count that were in the bucket index when the work began.
	Latest bool
	// Partial is set if tenants that cannot be read may be left out, with a warning. Queriers follow it where
	// that is switched on.
	Partial bool
}

// ReadingIn returns what the headers of a request say of places.
func ReadingIn(h http.Header) Reading {
	return Reading{Only: h.Get(FilterHeader), Latest: h.Get(ConsistencyHeader) == "strong"}
}

// ReadingFor returns what a request says.
func ReadingFor(r *http.Request) Reading {
	out := ReadingIn(r.Header)
	out.Partial = r.Header.Get(PartialHeader) == "true" && warns(r.URL.Path)
	return out
}

// warns says whether answers at a path can carry warnings.
func warns(path string) bool {
	_, call, ok := strings.Cut(path, "/api/v1/")
	switch call {
	case "query", "query_range", "series", "labels":
		return ok
	}
	return strings.HasPrefix(call, "label/") && strings.HasSuffix(call, "/values")
}

// Asks says whether a place is asked.
func (r Reading) Asks(place string) bool {
	return r.Only == "" || slices.ContainsFunc(strings.Split(r.Only, ","), func(name string) bool { return strings.TrimSpace(name) == place })
}

type readingKey struct{}

// WithReading returns ctx for work that reads as r says.
func WithReading(ctx context.Context, r Reading) context.Context {
	if r == (Reading{}) {
		return ctx
	}
	return context.WithValue(ctx, readingKey{}, r)
}

// ReadingOf returns how the work of ctx reads.
func ReadingOf(ctx context.Context) Reading {
	r, _ := ctx.Value(readingKey{}).(Reading)
	return r
}
