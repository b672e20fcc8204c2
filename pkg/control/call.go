package control

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// maxBody bounds a request: a file of 1 MB in base64, with room for the rest.
const maxBody = 2 << 20

// call is one request. The segments of its path are unescaped.
type call struct {
	r       *http.Request
	account string
	path    []string
	query   url.Values
	body    []byte
}

// reply is what an operation answers; nil body: an empty one.
type reply struct {
	status int
	body   any
}

type handler func(c *Control, x *call) (reply, error)

// Operation returns the handler of the operation with the given name, nil if there is none.
func (c *Control) Operation(name string) func(http.ResponseWriter, *http.Request) error {
	h := operations()[name]
	if h == nil {
		return nil
	}
	return func(w http.ResponseWriter, r *http.Request) error {
		if w.Header().Get("X-Amzn-Requestid") == "" {
			w.Header().Set("X-Amzn-Requestid", uuid.NewString())
		}
		outcome := "ok"
		rep, err := c.run(name, h, r)
		if err != nil {
			outcome = c.fail(w, name, err)
		} else {
			answer(w, rep.status, rep.body)
		}
		c.m.calls.WithLabelValues(name, outcome).Inc()
		return nil
	}
}

func (c *Control) run(name string, h handler, r *http.Request) (reply, error) {
	x := &call{r: r}
	var err error
	if x.account, err = c.deps.Account(r); err != nil {
		return reply{}, err
	}
	if c.deps.Allow != nil {
		if err := c.deps.Allow(x.account, "aps:"+name); err != nil {
			return reply{}, err
		}
	}
	for _, s := range strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/") {
		s, err := url.PathUnescape(s)
		if err != nil {
			return reply{}, unreadable("the path is not well escaped")
		}
		x.path = append(x.path, s)
	}
	if x.query, err = url.ParseQuery(r.URL.RawQuery); err != nil {
		return reply{}, unreadable("the query is not well escaped")
	}
	if r.Method != http.MethodGet && r.Method != http.MethodDelete && r.Body != nil {
		x.body, err = io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
		if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return reply{}, invalid("data", "the request is larger than "+strconv.FormatInt(e.Limit, 10)+" bytes")
		}
		if err != nil {
			return reply{}, errs.New(errs.Canceled, "the request could not be read: %w", err)
		}
	}
	return h(c, x)
}

// decode reads the body into v. An empty one is an empty object; members that v lacks are ignored.
func (x *call) decode(v any) error {
	if len(x.body) == 0 {
		return nil
	}
	if err := json.Unmarshal(x.body, v); err != nil {
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && e.Field != "" {
			return invalid(e.Field, e.Field+" has the wrong type: "+e.Value)
		}
		return unreadable("the body is not valid JSON for this operation: " + err.Error())
	}
	return nil
}

// segment returns the n-th segment of the path.
func (x *call) segment(n int) string {
	if n < len(x.path) {
		return x.path[n]
	}
	return ""
}

// epoch is a time as clients of AWS read it: seconds since 1970, with milliseconds.
type epoch time.Time

// MarshalJSON is part of json.Marshaler.
func (e epoch) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(time.Time(e).UnixMilli())/1000, 'f', -1, 64), nil
}

// pattern checks text against the expression and lengths of a shape.
func pattern(field, text, expr string, lo, hi int) error {
	n := utf8.RuneCountInString(text)
	switch {
	case n < lo || n > hi:
		return invalid(field, field+" must have "+strconv.Itoa(lo)+" to "+strconv.Itoa(hi)+" characters, not "+strconv.Itoa(n))
	case !utf8.ValidString(text):
		return invalid(field, field+" is not UTF-8")
	case expr != "" && !regexp.MustCompile(`^(?:`+expr+`)$`).MatchString(text):
		return invalid(field, field+" "+strconv.Quote(text)+" does not match "+expr)
	}
	return nil
}

func checkToken(text string) error {
	if text == "" {
		return nil
	}
	return pattern("clientToken", text, `[!-~]+`, 1, 64)
}

// maxTags is how many tags a resource may have.
const maxTags = 50

func checkTags(tags map[string]string) error {
	if len(tags) > maxTags {
		return invalid("tags", "a resource may have "+strconv.Itoa(maxTags)+" tags, not "+strconv.Itoa(len(tags)))
	}
	const expr = `[\p{L}\p{Z}\p{N}_.:/=+\-@]*`
	for k, v := range tags {
		if err := pattern("tags", k, expr, 1, 128); err != nil {
			return err
		}
		if err := pattern("tags", v, expr, 0, 256); err != nil {
			return err
		}
		if len(k) >= 4 && strings.EqualFold(k[:4], "aws:") {
			return invalid("tags", "tag keys that begin with aws: are reserved")
		}
	}
	return nil
}

// status is how calls tell a state.
type status struct {
	Code   string `json:"statusCode"`
	Reason string `json:"statusReason,omitempty"`
}
