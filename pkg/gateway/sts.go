package gateway

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/iam"
	"github.com/amphora-metrics/amphora/pkg/identity"
	"github.com/amphora-metrics/amphora/pkg/sigv4"
)

const (
	stsVersion   = "2011-06-15"
	stsNamespace = "https://sts.amazonaws.com/doc/2011-06-15/"
	// maxSTSBytes bounds a call of the security token service, of which a token of a provider is the most.
	maxSTSBytes = 64 << 10
)

// isSTS says whether r is a call of the security token service, which clients find at the root.
func isSTS(r *http.Request, path string) bool {
	if path != "/" && path != "" {
		return false
	}
	if r.Method == http.MethodGet {
		return r.URL.Query().Get("Version") == stsVersion
	}
	return r.Method == http.MethodPost && strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded")
}

// The answers of the service.
type (
	stsCaller struct {
		XMLName xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ GetCallerIdentityResponse"`
		ARN     string   `xml:"GetCallerIdentityResult>Arn"`
		UserID  string   `xml:"GetCallerIdentityResult>UserId"`
		Account string   `xml:"GetCallerIdentityResult>Account"`
		ID      string   `xml:"ResponseMetadata>RequestId"`
	}
	stsCredentials struct {
		AccessKeyID     string `xml:"AccessKeyId"`
		SecretAccessKey string
		SessionToken    string
		Expiration      string
	}
	stsUser struct {
		AssumedRoleID string `xml:"AssumedRoleId"`
		ARN           string `xml:"Arn"`
	}
	stsAssumed struct {
		Credentials                 stsCredentials
		AssumedRoleUser             stsUser
		PackedPolicySize            int
		SubjectFromWebIdentityToken string `xml:",omitempty"`
		Provider                    string `xml:",omitempty"`
		Audience                    string `xml:",omitempty"`
	}
	stsAssumeRole struct {
		XMLName xml.Name   `xml:"https://sts.amazonaws.com/doc/2011-06-15/ AssumeRoleResponse"`
		Result  stsAssumed `xml:"AssumeRoleResult"`
		ID      string     `xml:"ResponseMetadata>RequestId"`
	}
	stsAssumeWeb struct {
		XMLName xml.Name   `xml:"https://sts.amazonaws.com/doc/2011-06-15/ AssumeRoleWithWebIdentityResponse"`
		Result  stsAssumed `xml:"AssumeRoleWithWebIdentityResult"`
		ID      string     `xml:"ResponseMetadata>RequestId"`
	}
	stsSessionToken struct {
		XMLName     xml.Name       `xml:"https://sts.amazonaws.com/doc/2011-06-15/ GetSessionTokenResponse"`
		Credentials stsCredentials `xml:"GetSessionTokenResult>Credentials"`
		ID          string         `xml:"ResponseMetadata>RequestId"`
	}
	stsError struct {
		XMLName xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ ErrorResponse"`
		Type    string   `xml:"Error>Type"`
		Code    string   `xml:"Error>Code"`
		Message string   `xml:"Error>Message"`
		ID      string   `xml:"RequestId"`
	}
)

// serveSTS answers a call of the security token service.
func (g *Gateway) serveSTS(w http.ResponseWriter, r *http.Request, c *call) {
	out, err := g.sts(w, r, c)
	g.recordSTS(r, c, out, err)
	if err != nil {
		g.failSTS(w, c, err)
		return
	}
	g.metrics.requests.WithLabelValues("sts", "passed").Inc()
	writeXML(w, http.StatusOK, c, out)
}

func writeXML(w http.ResponseWriter, status int, c *call, v any) {
	h := w.Header()
	h.Set("Content-Type", "text/xml")
	h.Set("X-Amzn-Requestid", c.id)
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = xml.NewEncoder(w).Encode(v) // the client is gone if this fails
}

func (g *Gateway) failSTS(w http.ResponseWriter, c *call, err error) {
	no := asRefusal(err)
	kind := "Sender"
	if no.status >= http.StatusInternalServerError {
		kind = "Receiver"
	}
	g.metrics.requests.WithLabelValues("sts", outcome(no.status)).Inc()
	writeXML(w, no.status, c, stsError{Type: kind, Code: stsCode(no), Message: no.text, ID: c.id})
}

// stsCode is what the service calls a refusal.
func stsCode(no *refusal) string {
	code := map[string]string{
		codeThrottled: "Throttling", codeDenied: "AccessDenied", codeUnknown: "InvalidClientTokenId", codeUnavailable: "ServiceUnavailable",
		sigv4.InvalidSignature: "SignatureDoesNotMatch", sigv4.IncompleteSignature: "IncompleteSignature", sigv4.MissingToken: "MissingAuthenticationToken",
		"ValidationException": "ValidationError",
	}[no.code]
	if code == "" {
		return no.code
	}
	return code
}

func (g *Gateway) sts(w http.ResponseWriter, r *http.Request, c *call) (any, error) {
	if !g.cfg.Enabled {
		return nil, refuse(http.StatusBadRequest, "InvalidAction", "authentication is off")
	}
	held, err := g.hold(w, r, maxSTSBytes)
	c.held = held
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(held.bytes()))
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "ValidationError", "the form cannot be read")
	}
	maps.Copy(form, r.URL.Query())
	if g.deps.Audit != nil {
		if err := g.deps.Audit.Room(); err != nil {
			return nil, err
		}
	}
	action := form.Get("Action")
	c.form = form
	if action == "AssumeRoleWithWebIdentity" {
		return g.assumeWeb(r, c, form)
	}
	c.scheme = schemeSigned
	key, err := g.checkSignature(w, r, c, g.stsVerifier)
	g.countLogin(c, err)
	if err != nil {
		return nil, err
	}
	c.principal = key.Principal
	if err := g.quotas.take(c.principal.Account, "sts:"+action, g.now()); err != nil {
		return nil, err
	}
	switch action {
	case "GetCallerIdentity":
		p := c.principal
		return stsCaller{ARN: p.ARN, UserID: p.ID, Account: p.Account, ID: c.id}, nil
	case "AssumeRole":
		return g.assumeRole(r, c, form)
	case "GetSessionToken":
		return g.sessionToken(r, c, form)
	}
	return nil, refuse(http.StatusBadRequest, "InvalidAction", "Could not find operation %s for version %s", action, stsVersion)
}

func (g *Gateway) assumeRole(r *http.Request, c *call, form url.Values) (any, error) {
	a, err := assumption(form)
	if err != nil {
		return nil, err
	}
	if err := g.secondFactor(r, c, form); err != nil {
		return nil, err
	}
	k := &keys{g: g, r: r, c: c, requestTags: a.Tags, tagKeys: slices.Sorted(maps.Keys(a.Tags))}
	a.Keys = &stsKeys{keys: k, form: form}
	cred, err := g.deps.Identities.Assume(r.Context(), c.principal, a)
	if err != nil {
		return nil, stsProblem(err)
	}
	return stsAssumeRole{Result: assumed(cred), ID: c.id}, nil
}

// sessionToken gives the caller temporary credentials of its own; that needs no permission.
func (g *Gateway) sessionToken(r *http.Request, c *call, form url.Values) (any, error) {
	lasts, err := duration(form, identity.MaxUserSession)
	if err != nil {
		return nil, err
	}
	if err := g.secondFactor(r, c, form); err != nil {
		return nil, err
	}
	cred, err := g.deps.Identities.UserSession(r.Context(), c.principal, lasts, c.mfa)
	if err != nil {
		return nil, stsProblem(err)
	}
	return stsSessionToken{Credentials: temporary(cred), ID: c.id}, nil
}

func (g *Gateway) assumeWeb(r *http.Request, c *call, form url.Values) (any, error) {
	c.scheme = schemeBearer
	if err := g.guesses.check(c.client.address, "", g.now()); err != nil {
		return nil, err
	}
	v, err := g.deps.Identities.WebIdentity(r.Context(), form.Get("WebIdentityToken"))
	g.countLogin(c, err)
	if err != nil {
		g.wrong(c, "", err)
	}
	switch {
	case identity.IsExpired(err):
		return nil, refuse(http.StatusBadRequest, codeExpired, "Token is expired")
	case errs.KindOf(err) == errs.Unauthenticated && err != nil:
		return nil, refuse(http.StatusBadRequest, "InvalidIdentityToken", "The web identity token could not be validated")
	case errs.KindOf(err) == errs.Unavailable && err != nil:
		// 400, as clients of the service try again on it.
		return nil, refuse(http.StatusBadRequest, "IDPCommunicationError", "The identity provider could not be asked")
	case err != nil:
		return nil, err
	}
	a, err := assumption(form)
	if err != nil {
		return nil, err
	}
	if err := g.quotas.take(v.Account, "sts:AssumeRoleWithWebIdentity", g.now()); err != nil {
		return nil, err
	}
	c.principal = &iam.Principal{Account: v.Account, ARN: "web identity " + v.Subject, ID: v.Subject, Type: iam.TypeWeb, Federated: v.Federated}
	a.Web, a.Tags = true, nil
	a.Keys = &stsKeys{keys: &keys{g: g, r: r, c: c}, form: form, vouched: v}
	cred, err := g.deps.Identities.Assume(r.Context(), c.principal, a)
	if err != nil {
		return nil, stsProblem(err)
	}
	out := assumed(cred)
	out.SubjectFromWebIdentityToken, out.Provider, out.Audience = v.Subject, v.Issuer, v.Audience
	return stsAssumeWeb{Result: out, ID: c.id}, nil
}

// recordSTS keeps a record of a call of somebody who is known. It says what was asked for and which access
// key came of it, and holds none of the secrets.
func (g *Gateway) recordSTS(r *http.Request, c *call, out any, err error) {
	if g.deps.Audit == nil || c.principal == nil {
		return
	}
	no := (*refusal)(nil)
	if err != nil {
		if no = asRefusal(err); no.code == codeThrottled {
			return
		}
	}
	action := c.form.Get("Action")
	if !slices.Contains([]string{"GetCallerIdentity", "AssumeRole", "AssumeRoleWithWebIdentity", "GetSessionToken"}, action) {
		return
	}
	rec := g.record(r, c, "sts:"+action)
	params := map[string]any{}
	for _, name := range []string{"RoleArn", "RoleSessionName", "DurationSeconds", "ExternalId", "SourceIdentity", "SerialNumber"} {
		if v := c.form.Get(name); v != "" {
			params[strings.ToLower(name[:1])+name[1:]] = v
		}
	}
	if len(params) > 0 {
		rec.RequestParameters = encoded(params)
	}
	switch out := out.(type) {
	case stsAssumeRole:
		rec.ResponseElements = out.Result.recorded()
	case stsAssumeWeb:
		rec.ResponseElements = out.Result.recorded()
	case stsSessionToken:
		rec.ResponseElements = encoded(map[string]any{"credentials": out.Credentials.recorded()})
	}
	if no != nil {
		rec.ErrorCode, rec.ErrorMessage = stsCode(no), no.text
	}
	g.keep(rec)
}

// recorded is what a record says of new credentials.
func (c *stsCredentials) recorded() map[string]any {
	return map[string]any{"accessKeyId": c.AccessKeyID, "expiration": c.Expiration, "sessionToken": "***"}
}

// recorded is what a record says of a role that was assumed.
func (a *stsAssumed) recorded() json.RawMessage {
	return encoded(map[string]any{
		"credentials":     a.Credentials.recorded(),
		"assumedRoleUser": map[string]any{"assumedRoleId": a.AssumedRoleUser.AssumedRoleID, "arn": a.AssumedRoleUser.ARN},
	})
}

// assumption reads the parameters that both ways have.
func assumption(form url.Values) (identity.Assumption, error) {
	a := identity.Assumption{RoleARN: form.Get("RoleArn"), Name: form.Get("RoleSessionName")}
	if len(a.RoleARN) < 20 || len(a.RoleARN) > 2048 {
		return a, refuse(http.StatusBadRequest, "ValidationError", "RoleArn must have 20 to 2048 bytes")
	}
	var err error
	if a.Duration, err = duration(form, identity.MaxSession); err != nil {
		return a, err
	}
	if p := form.Get("Policy"); p != "" {
		a.Policies = append(a.Policies, p)
	}
	const most = 50
	for i := 1; i <= most; i++ {
		n := strconv.Itoa(i)
		if arn := form.Get("PolicyArns.member." + n + ".arn"); arn != "" {
			a.Policies = append(a.Policies, arn)
		}
		if k := form.Get("Tags.member." + n + ".Key"); k != "" {
			if a.Tags == nil {
				a.Tags = map[string]string{}
			}
			a.Tags[k] = form.Get("Tags.member." + n + ".Value")
		}
	}
	return a, nil
}

// duration reads how long a session is to last; 0: the caller does not say.
func duration(form url.Values, longest time.Duration) (time.Duration, error) {
	s := form.Get("DurationSeconds")
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < int(identity.MinSession.Seconds()) || n > int(longest.Seconds()) {
		return 0, refuse(http.StatusBadRequest, "ValidationError", "DurationSeconds must be between %d and %d", int(identity.MinSession.Seconds()), int(longest.Seconds()))
	}
	return time.Duration(n) * time.Second, nil
}

func temporary(c identity.Credentials) stsCredentials {
	return stsCredentials{c.AccessKey, c.Secret, c.Token, c.Expires.UTC().Format(time.RFC3339)}
}

func assumed(c identity.Credentials) stsAssumed {
	return stsAssumed{
		Credentials:      temporary(c),
		AssumedRoleUser:  stsUser{c.RoleID, c.ARN},
		PackedPolicySize: c.PackedPercent,
	}
}

// stsProblem gives errors of Assume the codes of the service.
func stsProblem(err error) error {
	switch errs.KindOf(err) {
	case errs.Denied:
		return refuse(http.StatusForbidden, "AccessDenied", "%s", err)
	case errs.BodyTooLarge:
		return refuse(http.StatusBadRequest, "PackedPolicyTooLarge", "%s", err)
	case errs.Invalid:
		if strings.Contains(err.Error(), "policy") {
			return refuse(http.StatusBadRequest, "MalformedPolicyDocument", "%s", err)
		}
		return refuse(http.StatusBadRequest, "ValidationError", "%s", err)
	}
	return err
}

// stsKeys adds what a call of the service says.
type stsKeys struct {
	keys    *keys
	form    url.Values
	vouched *identity.Vouched
}

// Values implements iam.Keys.
func (k *stsKeys) Values(key string) ([]string, bool) {
	switch key {
	case "sts:externalid":
		return one(k.form.Get("ExternalId"))
	case "sts:rolesessionname":
		return one(k.form.Get("RoleSessionName"))
	case "sts:sourceidentity":
		return one(k.form.Get("SourceIdentity"))
	case "sts:transitivetagkeys":
		var names []string
		for name, v := range k.form {
			if strings.HasPrefix(name, "TransitiveTagKeys.member.") {
				names = append(names, v...)
			}
		}
		slices.Sort(names)
		return names, len(names) > 0
	}
	if k.vouched != nil {
		if v, ok := k.vouched.Values(key); ok {
			return v, true
		}
	}
	return k.keys.Values(key)
}

// countLogin counts a proof of identity.
func (g *Gateway) countLogin(c *call, err error) {
	result := "success"
	if err != nil {
		result = "failure"
		if errs.KindOf(err) == errs.Unavailable {
			result = "unavailable"
		}
		if e, ok := errors.AsType[*refusal](err); ok && e.status == http.StatusServiceUnavailable {
			result = "unavailable"
		}
	}
	g.metrics.logins.WithLabelValues(c.scheme, result).Inc()
}
