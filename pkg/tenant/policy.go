package tenant

import (
	"net/http"
	"net/url"
	"reflect"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// PolicyHeader holds reads to series: <tenant>:<selector>, the selector escaped as in a query. Of several
// selectors joined by | one must select a series; of several values of a tenant all must do so.
const PolicyHeader = "X-Prom-Label-Policy"

// ClassHeader says how much a query matters, in the words of package work. Services tell each other;
// what clients say is taken away by the gateway.
const ClassHeader = "X-Amphora-Query-Class"

// Policy is the selectors that reads of a tenant are held to: of each list one selector must select a
// series. None: every series may be read.
type Policy [][]string

// AddPolicy writes the policy of id into h.
func AddPolicy(h http.Header, id string, p Policy) {
	for _, alternatives := range p {
		escaped := make([]string, len(alternatives))
		for i, s := range alternatives {
			escaped[i] = url.QueryEscape(s)
		}
		h.Add(PolicyHeader, id+":"+strings.Join(escaped, "|"))
	}
}

// PolicyOf reads the one policy that holds for all of ids. Errors: Denied for what cannot be read, and for
// tenants with different policies, since an answer over several tenants is held to one.
func PolicyOf(h http.Header, ids []ID) (Policy, error) {
	values := h.Values(PolicyHeader)
	if len(values) == 0 {
		return nil, nil
	}
	by := map[string]Policy{}
	for item := range strings.SplitSeq(strings.Join(values, ","), ",") {
		id, text, ok := strings.Cut(strings.TrimSpace(item), ":")
		if !ok || text == "" {
			return nil, errs.New(errs.Denied, "label policy cannot be read")
		}
		var alternatives []string
		for part := range strings.SplitSeq(text, "|") {
			s, err := url.QueryUnescape(part)
			if err != nil || s == "" {
				return nil, errs.New(errs.Denied, "label policy cannot be read")
			}
			alternatives = append(alternatives, s)
		}
		by[id] = append(by[id], alternatives)
	}
	var out Policy
	for i, id := range ids {
		if i > 0 && !reflect.DeepEqual(by[string(id)], out) {
			return nil, errs.New(errs.Denied, "tenants whose label policies differ cannot be read at once")
		}
		out = by[string(id)]
	}
	return out, nil
}
