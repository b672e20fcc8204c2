package gateway

import (
	"net/url"
	"slices"
	"strings"
)

// Route is a row of the table of routes, as far as the gateway must know it.
type Route struct {
	Methods string // separated by commas
	Path    string // with {name} for a segment and {name...} for the rest
	Action  string
	Service string // which part of Amphora serves it
	// Tenants is how many a request acts for: 0, 1, or 2 for any number.
	Tenants int
	Style   Style
	// Selectable says that answers can be held to the series that a selector selects. Who may read some
	// series only may not use other routes that act for tenants.
	Selectable bool
}

// Style says how errors look to the clients of a route.
type Style uint8

// The styles.
const (
	Plain Style = iota // text
	Prom               // Prometheus's JSON
	AWS                // JSON with the headers of AWS
	GRPC               // a status in trailers
	Query              // XML of AWS's query protocol
)

// Open is the action of routes that anybody may use.
const Open = "amphora:Open"

// table finds the row of a request.
type table struct {
	byLength map[int][]pattern
	rest     []pattern // that end in {name...}
}

type pattern struct {
	segments []string
	route    *Route
}

// values are the decoded segments that stand for names.
type values map[string]string

// of returns the value of a name, whatever its case.
func (v values) of(name string) string {
	for k, text := range v {
		if strings.EqualFold(k, name) {
			return text
		}
	}
	return ""
}

func newTable(routes []Route) *table {
	t := &table{byLength: map[int][]pattern{}}
	for i := range routes {
		segments := strings.Split(strings.TrimSuffix(routes[i].Path, "{$}"), "/")
		p := pattern{segments, &routes[i]}
		if strings.HasSuffix(segments[len(segments)-1], "...}") {
			t.rest = append(t.rest, p)
		} else {
			t.byLength[len(segments)] = append(t.byLength[len(segments)], p)
		}
	}
	for _, ps := range t.byLength {
		slices.SortStableFunc(ps, bySpecificity)
	}
	return t
}

// bySpecificity orders patterns of one length: literal segments come before names, the first difference decides.
func bySpecificity(a, b pattern) int {
	for i := range a.segments {
		switch x, y := isName(a.segments[i]), isName(b.segments[i]); {
		case y && !x:
			return -1
		case x && !y:
			return 1
		}
	}
	return 0
}

func isName(segment string) bool { return strings.HasPrefix(segment, "{") }

// find returns the row of method and path, which is as it was sent, and the values in it. If no row
// of the path has the method, one without it is returned: to say so is for who serves it. Nil: the
// path is unknown. So is one that is written in a way of its own, with escapes in what is no name, or
// with segments that are empty, . or ..: who serves it might read it as another one than what was allowed.
func (t *table) find(method, path string) (*Route, values) {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if s == "." || s == ".." || s == "" && i > 0 && i < len(segments)-1 {
			return nil, nil
		}
	}
	var other *Route
	var otherValues values
	for _, ps := range [][]pattern{t.byLength[len(segments)], t.rest} {
		for _, p := range ps {
			v, ok, plain := p.match(segments)
			switch {
			case !ok:
				continue
			case !plain:
				return nil, nil
			case p.route.allows(method):
				return p.route, v
			}
			if other == nil {
				other, otherValues = p.route, v
			}
		}
	}
	return other, otherValues
}

func (rt *Route) allows(method string) bool {
	for m := range strings.SplitSeq(rt.Methods, ",") {
		if m == method || m == "GET" && method == "HEAD" {
			return true
		}
	}
	return false
}

// match compares segments decoded, as http.ServeMux does. Plain says that all literal ones were sent as they are.
func (p *pattern) match(segments []string) (v values, ok, plain bool) {
	v, plain = values{}, true
	for i, want := range p.segments {
		if i >= len(segments) {
			return nil, false, false
		}
		text := segments[i]
		if strings.HasSuffix(want, "...}") {
			text = strings.Join(segments[i:], "/")
		}
		decoded, err := url.PathUnescape(text)
		if !isName(want) {
			if text != want && (err != nil || decoded != want) {
				return nil, false, false
			}
			plain = plain && text == want
			continue
		}
		if err != nil || decoded == "" {
			return nil, false, false
		}
		v[strings.Trim(want, "{.}")] = decoded
	}
	return v, true, plain
}
