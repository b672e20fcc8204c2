package gateway

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/audit"
	"github.com/amphora-metrics/amphora/pkg/iam"
)

// Audit keeps records of calls.
type Audit interface {
	// Room says whether records can be kept. Errors: Unavailable.
	Room() error
	Write(*audit.Record) error
}

const (
	// maxAuditBytes is how much of a body a record holds; longer ones are left out.
	maxAuditBytes = 256 << 10
	eventVersion  = "1.08"
)

// isData says whether an action is about samples and alerts and not about the configuration.
func isData(action string) bool {
	service, name, _ := strings.Cut(action, ":")
	if service == "amphora" {
		return name == "Open" || name == "Scrape" || name == "DescribeTenant"
	}
	return slices.Contains([]string{"RemoteWrite", "QueryMetrics", "GetLabels", "GetSeries", "GetMetricMetadata", "ListRules", "ListAlerts", "CreateAlertManagerAlerts"}, name) ||
		strings.HasPrefix(name, "ListAlertManager") || strings.HasPrefix(name, "GetAlertManager")
}

// onlyReads says whether a call of an action changes nothing.
func onlyReads(method, action string) bool {
	switch action {
	case "aps:QueryMetrics", "aps:GetLabels", "aps:GetSeries", "aps:GetMetricMetadata", "aps:ListRules":
		return method == http.MethodGet || method == http.MethodPost || method == http.MethodHead
	}
	return false
}

// audited says whether a record is kept of c.
func (g *Gateway) audited(c *call) bool {
	return g.cfg.Enabled && g.deps.Audit != nil && c.principal != nil && c.target.route != nil &&
		(!isData(c.target.route.Action) || g.deps.AuditData && c.target.route.Action != Open)
}

// recorder keeps the beginning of an answer.
type recorder struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	if r.body.Len() <= maxAuditBytes {
		r.body.Write(b[:min(len(b), maxAuditBytes+1)])
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets handlers reach what is below.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// keeper reads a body for the one who serves the call and keeps its beginning.
type keeper struct {
	io.ReadCloser
	kept bytes.Buffer
}

func (k *keeper) Read(b []byte) (int, error) {
	n, err := k.ReadCloser.Read(b)
	if k.kept.Len() <= maxAuditBytes {
		k.kept.Write(b[:min(n, maxAuditBytes+1)])
	}
	return n, err
}

// watched passes a call on and records it when it ends.
func (g *Gateway) watched(w http.ResponseWriter, r *http.Request, c *call, next http.Handler) {
	if err := g.deps.Audit.Room(); err != nil {
		g.fail(w, r, c, err)
		return
	}
	out := &recorder{ResponseWriter: w}
	next = g.keepBody(c, next)
	defer func() {
		rec := g.record(r, c, c.target.route.Action)
		rec.RequestParameters = parameters(r, c, c.kept)
		if out.status >= http.StatusBadRequest {
			rec.ErrorCode, rec.ErrorMessage = problem(out)
		} else if !rec.ReadOnly {
			rec.ResponseElements = redacted(out.body.Bytes())
		}
		g.keep(rec)
	}()
	g.pass(out, r, c, next)
}

// keepBody keeps the beginning of the body that next reads.
func (g *Gateway) keepBody(c *call, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil {
			k := &keeper{ReadCloser: r.Body}
			r.Body = k
			defer func() { c.kept = k.kept.Bytes() }()
		}
		next.ServeHTTP(w, r)
	})
}

// refused records a call that was not passed on.
func (g *Gateway) refused(r *http.Request, c *call, no *refusal) {
	rec := g.record(r, c, c.target.route.Action)
	rec.RequestParameters = parameters(r, c, nil)
	rec.ErrorCode, rec.ErrorMessage = strings.TrimSuffix(no.code, "Exception"), no.text
	g.keep(rec)
}

func (g *Gateway) keep(rec *audit.Record) {
	if err := g.deps.Audit.Write(rec); err != nil {
		g.log.Error("call not recorded, free the disk of the audit directory", "event", rec.EventName, "caller", rec.UserIdentity.ARN, "err", err)
	}
}

// record is what is known of a call of an action before it is served.
func (g *Gateway) record(r *http.Request, c *call, action string) *audit.Record {
	service, name, _ := strings.Cut(action, ":")
	p := c.principal
	rec := &audit.Record{
		EventVersion: eventVersion, EventTime: g.now().UTC().Truncate(1e9), EventSource: service + ".amazonaws.com", EventName: name,
		AWSRegion: g.cfg.Regions[0], SourceIPAddress: c.client.address, UserAgent: r.UserAgent(), RequestID: c.id, EventID: newEventID(g.now()),
		ReadOnly:  strings.HasPrefix(name, "Describe") || strings.HasPrefix(name, "List") || strings.HasPrefix(name, "Get") || strings.HasPrefix(name, "Read"),
		EventType: "AwsApiCall", ManagementEvent: !isData(action), EventCategory: "Management", RecipientAccountID: p.Account,
		UserIdentity: audit.Identity{Type: p.Type, PrincipalID: p.ID, ARN: p.ARN, AccountID: p.Account, AccessKeyID: p.AccessKey},
	}
	if service == "amphora" {
		rec.EventSource = service
		if action == "amphora:Admin" && r.Method == http.MethodGet {
			rec.ReadOnly = true
		}
	}
	if !rec.ManagementEvent {
		rec.EventCategory = "Data"
	}
	if p.Type == iam.TypeUser {
		rec.UserIdentity.UserName = p.Name
	}
	if p.RoleARN != "" {
		rec.UserIdentity.SessionContext = &audit.Session{
			SessionIssuer:       audit.Issuer{Type: "Role", PrincipalID: p.RoleID, ARN: p.RoleARN, AccountID: p.Account, UserName: p.RoleARN[strings.LastIndexByte(p.RoleARN, '/')+1:]},
			WebIDFederationData: map[string]string{},
			Attributes:          audit.Attributes{MFAAuthenticated: "false", CreationDate: p.Since.UTC()},
		}
	} else if !p.Since.IsZero() { // credentials of GetSessionToken
		rec.UserIdentity.SessionContext = &audit.Session{
			WebIDFederationData: map[string]string{},
			Attributes:          audit.Attributes{MFAAuthenticated: strconv.FormatBool(!p.MFA.IsZero()), CreationDate: p.Since.UTC()},
		}
	}
	return rec
}

// parameters are those of the path, of the query and the members of a body in JSON.
func parameters(r *http.Request, c *call, body []byte) json.RawMessage {
	out := map[string]any{}
	if len(body) <= maxAuditBytes {
		_ = json.Unmarshal(body, &out) // other bodies are not shown
	}
	if out == nil {
		out = map[string]any{}
	}
	if query, err := url.ParseQuery(r.URL.RawQuery); err == nil {
		for k, v := range query {
			if !strings.HasPrefix(k, "X-Amz-") {
				out[k] = strings.Join(v, ",")
			}
		}
	}
	for k, v := range c.target.values {
		out[k] = v
	}
	if c.target.flavour == native && len(c.tenants) > 0 {
		out["tenant"] = strings.Join(c.tenants, "|")
	}
	hide(out)
	if len(out) == 0 {
		return nil
	}
	return encoded(out)
}

// redacted is a JSON answer without its secrets; nil if it is none.
func redacted(body []byte) json.RawMessage {
	out := map[string]any{}
	if len(body) > maxAuditBytes || json.Unmarshal(body, &out) != nil {
		return nil
	}
	hide(out)
	return encoded(out)
}

func encoded(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return data
}

// hide masks what looks like a secret by its name.
func hide(v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, inner := range v {
			name := strings.ToLower(k)
			if strings.Contains(name, "secret") || strings.Contains(name, "password") || name == "codes" || strings.HasSuffix(name, "token") && name != "clienttoken" && name != "nexttoken" {
				v[k] = "***"
				continue
			}
			hide(inner)
		}
	case []any:
		for _, inner := range v {
			hide(inner)
		}
	}
}

// problem reads what an error answer says.
func problem(out *recorder) (code, message string) {
	code = out.Header().Get("X-Amzn-Errortype")
	var body struct{ Message, Error string }
	if json.Unmarshal(out.body.Bytes(), &body) == nil {
		message = body.Message + body.Error
	}
	if code == "" {
		code = http.StatusText(out.status)
	}
	return strings.TrimSuffix(code, "Exception"), message
}
