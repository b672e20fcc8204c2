package gateway

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/iam"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// tenantHeader names the tenants to services. What clients send in it is checked, or replaced.
const tenantHeader = "X-Scope-OrgID"

// pass hands the request on with what was found out about it.
func (g *Gateway) pass(w http.ResponseWriter, r *http.Request, c *call, next http.Handler) {
	out := *r
	out.Header = r.Header.Clone()
	// What the client lists in Connection is for this hop. A proxy behind would take it away, and must not be
	// told to do that with what is set here.
	for _, name := range []string{"Authorization", "Proxy-Authorization", "X-Amz-Security-Token", "X-Amz-Date", "X-Amz-Content-Sha256",
		tenant.PolicyHeader, tenant.ClassHeader, iam.CallerHeader, "Connection", "Keep-Alive", "Proxy-Connection", "Forwarded", "X-Real-Ip"} {
		out.Header.Del(name)
	}
	if c.principal != nil {
		iam.SetCaller(out.Header, c.principal)
	}
	if len(c.tenants) > 0 {
		out.Header.Set(tenantHeader, strings.Join(c.tenants, "|"))
	} else if g.cfg.Enabled {
		out.Header.Del(tenantHeader)
	}
	out.Header.Set("X-Request-Id", c.id)
	out.Header.Set("X-Forwarded-For", c.client.address)
	if c.client.secure {
		out.Header.Set("X-Forwarded-Proto", "https")
	} else if out.Header.Get("X-Forwarded-Proto") == "" { // otherwise a proxy says so that nobody declared
		out.Header.Set("X-Forwarded-Proto", "http")
	}
	for _, id := range c.tenants {
		tenant.AddPolicy(out.Header, id, c.selectors[id])
	}
	if c.target.flavour != native || c.scheme == schemeSigned {
		w.Header().Set("X-Amzn-Requestid", c.id)
	}
	if c.held != nil {
		out.Body = inMemory{bytes.NewReader(c.held.bytes())}
		out.ContentLength = int64(len(c.held.bytes()))
	}
	if !g.readdress(w, &out, c) {
		return
	}
	to := &out
	if g.deps.NoTenancy != "" && c.target.workspace != "" && len(c.tenants) == 1 {
		// The header is for others to ignore; in this process the context says it.
		to = out.WithContext(tenant.Inject(out.Context(), tenant.ID(c.tenants[0])))
	}
	next.ServeHTTP(w, to)
}

// readdress gives out the path that services know.
func (g *Gateway) readdress(w http.ResponseWriter, out *http.Request, c *call) bool {
	u := *out.URL
	out.URL = &u
	if c.target.flavour == amazon || c.target.flavour == alibaba {
		decoded, err := url.PathUnescape(c.target.path)
		if err != nil {
			g.fail(w, out, c, refuse(http.StatusBadRequest, "ValidationException", "the path has a broken percent escape"))
			return false
		}
		u.Path, u.RawPath = decoded, c.target.path
	}
	if c.target.flavour == alibaba && strings.HasPrefix(c.target.route.Action, "aps:Query") {
		if err := inMillis(out); err != nil {
			g.fail(w, out, c, err)
			return false
		}
	}
	if c.scheme == schemeSigned { // the presigned part is spent, and nobody behind needs it
		u.RawQuery = withoutSignature(u.RawQuery)
	}
	out.RequestURI = u.RequestURI()
	return true
}

func withoutSignature(query string) string {
	if !strings.Contains(query, "Amz") && !strings.Contains(query, "%") {
		return query
	}
	kept := slices.DeleteFunc(strings.Split(query, "&"), func(p string) bool {
		name, _, _ := strings.Cut(p, "=")
		name, err := url.QueryUnescape(name)
		return err == nil && strings.HasPrefix(name, "X-Amz-")
	})
	return strings.Join(kept, "&")
}

// maxFormBytes bounds a form that must be rewritten.
const maxFormBytes = 1 << 20

// inMillis turns the parameter timeout, wherever it stands, from milliseconds into seconds.
func inMillis(r *http.Request) error {
	if q := r.URL.Query(); millis(q) {
		r.URL.RawQuery = q.Encode()
	}
	if r.Method != http.MethodPost || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxFormBytes+1))
	if err != nil || len(body) > maxFormBytes {
		return refuse(http.StatusRequestEntityTooLarge, codeTooLarge, "the form cannot be read, or is larger than %d bytes", maxFormBytes)
	}
	form, err := url.ParseQuery(string(body))
	if err == nil && millis(form) {
		body = []byte(form.Encode())
	}
	r.Body, r.ContentLength = inMemory{bytes.NewReader(body)}, int64(len(body))
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return nil
}
