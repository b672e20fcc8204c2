package gateway

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // Authenticator apps compute with it.
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/pkg/sigv4"
)

// appCode is what an authenticator app shows now for the secret GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ.
func appCode() string {
	m := hmac.New(sha1.New, []byte("12345678901234567890"))
	_, _ = m.Write(binary.BigEndian.AppendUint64(nil, uint64(time.Now().Unix()/30)))
	sum := m.Sum(nil)
	return fmt.Sprintf("%06d", binary.BigEndian.Uint32(sum[sum[19]&15:])<<1>>1%1_000_000)
}

// mfaAccounts have a user whose rights hang on codes, and devices enough for one code of each.
func mfaAccounts() string {
	device := func(names ...string) string {
		var out []string
		for _, n := range names {
			out = append(out, "{name: "+n+", secret: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ}")
		}
		return "[" + strings.Join(out, ", ") + "]"
	}
	return strings.Replace(accounts, `      - name: nobody
`, `      - name: careful
        keys: [{id: AKIDREADER09, secret: reader-secret-reader}]
        policies: [AmazonPrometheusFullAccess]
        mfa_devices: `+device("d1", "d2", "d3", "d4", "d5", "d6")+`
        inline:
          guard:
            Version: "2012-10-17"
            Statement:
              - {Effect: Deny, Action: "aps:RemoteWrite", Resource: "*", Condition: {BoolIfExists: {"aws:MultiFactorAuthPresent": "false"}}}
              - {Effect: Deny, Action: "aps:GetLabels", Resource: "*", Condition: {Bool: {"aws:MultiFactorAuthPresent": "false"}}}
              - {Effect: Deny, Action: "aps:DescribeWorkspace", Resource: "*", Condition: {"Null": {"aws:MultiFactorAuthAge": "true"}}}
              - {Effect: Deny, Action: "aps:QueryMetrics", Resource: "*", Condition: {NumericGreaterThan: {"aws:MultiFactorAuthAge": "3600"}}}
      - name: nobody
        mfa_devices: `+device("theirs")+`
`, 1) + `    roles:
      - name: ops
        policies: [AmazonPrometheusFullAccess]
        inline:
          guard: {Version: "2012-10-17", Statement: {Effect: Deny, Action: "aps:RemoteWrite", Resource: "*", Condition: {Bool: {"aws:MultiFactorAuthPresent": "false"}}}}
        trust:
          Version: "2012-10-17"
          Statement:
            - {Effect: Allow, Action: "sts:AssumeRole", Principal: {AWS: "arn:aws:iam::000000000000:user/careful"}, Condition: {Bool: {"aws:MultiFactorAuthPresent": "true"}, NumericLessThan: {"aws:MultiFactorAuthAge": "300"}}}
`
}

// withRoles puts roles into the first account.
func withRoles(text string) string {
	before, roles, _ := strings.Cut(text, "    roles:\n")
	first, second, _ := strings.Cut(before, `  - id: "111111111111"`)
	return first + "    roles:\n" + roles + `  - id: "111111111111"` + second
}

// asSession sends a request with temporary credentials.
func (d *door) asSession(by sigv4.Signer, method, path string) int {
	d.t.Helper()
	r := httptest.NewRequest(method, path, http.NoBody)
	if err := by.Sign(r, nil, time.Now()); err != nil {
		d.t.Fatal(err)
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w.Code
}

// token makes a call of the token service and returns the credentials of the answer.
func (d *door) token(by sigv4.Signer, form url.Values) (sigv4.Signer, *httptest.ResponseRecorder) {
	d.t.Helper()
	form.Set("Version", stsVersion)
	body := form.Encode()
	r := httptest.NewRequest("POST", "/", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	by.Service = "sts"
	if err := by.Sign(r, []byte(body), time.Now()); err != nil {
		d.t.Fatal(err)
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	part := func(name string) string {
		_, rest, _ := strings.Cut(w.Body.String(), "<"+name+">")
		text, _, _ := strings.Cut(rest, "<")
		return text
	}
	return sigv4.Signer{AccessKey: part("AccessKeyId"), Secret: part("SecretAccessKey"), SessionToken: part("SessionToken"), Region: "us-east-1", Service: "aps"}, w
}

// TestRightsMayHangOnACodeOfADevice has the four ways of conditions that people write, for a lasting key, sessions of
// the user with and without a code, and sessions in a role.
func TestRightsMayHangOnACodeOfADevice(t *testing.T) {
	l := &ledger{}
	d := open(t, func(_ *Config, deps *Deps) { deps.Audit = l }, withRoles(mfaAccounts()))
	key := sigv4.Signer{AccessKey: "AKIDREADER09", Secret: "reader-secret-reader", Region: "us-east-1", Service: "aps"}
	serial := "arn:aws:iam::000000000000:mfa/"
	plain, w := d.token(key, url.Values{"Action": {"GetSessionToken"}})
	if w.Code != 200 {
		t.Fatal(w.Body)
	}
	proven, w := d.token(key, url.Values{"Action": {"GetSessionToken"}, "SerialNumber": {serial + "d1"}, "TokenCode": {appCode()}})
	if w.Code != 200 {
		t.Fatal(w.Body)
	}
	ops := url.Values{"Action": {"AssumeRole"}, "RoleArn": {"arn:aws:iam::000000000000:role/ops"}, "RoleSessionName": {"night"}}
	for name, by := range map[string]sigv4.Signer{"a key": key, "a session": plain} {
		if _, w := d.token(by, ops); w.Code != 403 || !strings.Contains(w.Body.String(), "<Code>AccessDenied</Code>") {
			t.Errorf("the role with %s: %d %s", name, w.Code, w.Body)
		}
	}
	if _, w := d.token(proven, ops); w.Code != 200 {
		t.Errorf("the role by a session with a code: %s", w.Body)
	}
	ops.Set("SerialNumber", serial+"d2")
	ops.Set("TokenCode", appCode())
	inRole, w := d.token(key, ops)
	if w.Code != 200 {
		t.Errorf("the role with a code: %s", w.Body)
	}
	const push, labels, describe, query = "/workspaces/ws-1/api/v1/remote_write", "/workspaces/ws-1/api/v1/label/a/values", "/workspaces/ws-1", "/workspaces/ws-1/api/v1/query"
	for _, c := range []struct {
		name                          string
		by                            sigv4.Signer
		push, labels, describe, query int
	}{
		{"a lasting key", key, 403, 200, 403, 200}, // it has none of the keys of conditions
		{"a session", plain, 403, 403, 403, 200},
		{"a session with a code", proven, 200, 200, 200, 200},
		{"a role", inRole, 403, 200, 200, 200}, // of which the session itself has no code
	} {
		for path, want := range map[string]int{push: c.push, labels: c.labels, describe: c.describe, query: c.query} {
			method := "GET"
			if path == push {
				method = "POST"
			}
			if got := d.asSession(c.by, method, path); got != want {
				t.Errorf("%s, %s: %d, want %d", c.name, path, got, want)
			}
		}
	}
	var said []string
	for _, r := range l.records {
		if r.EventName == "GetSessionToken" || r.EventName == "AssumeRole" {
			said = append(said, string(r.RequestParameters))
		}
		if r.UserIdentity.AccessKeyID == proven.AccessKey && (r.UserIdentity.SessionContext == nil || r.UserIdentity.SessionContext.Attributes.MFAAuthenticated != "true") {
			t.Errorf("recorded as without a code: %+v", r.UserIdentity)
		}
		if r.UserIdentity.AccessKeyID == plain.AccessKey && (r.UserIdentity.SessionContext == nil || r.UserIdentity.SessionContext.Attributes.MFAAuthenticated != "false") {
			t.Errorf("recorded as with a code: %+v", r.UserIdentity)
		}
	}
	if all := strings.Join(said, " "); !strings.Contains(all, `"serialNumber":"`+serial+`d1"`) || strings.Contains(strings.ToLower(all), "tokencode") {
		t.Errorf("recorded: %s", all)
	}
}

func TestCodesThatAreNotGoodAreRefused(t *testing.T) {
	d := open(t, func(c *Config, _ *Deps) { c.FailedLogins = 4 }, withRoles(mfaAccounts()))
	key := sigv4.Signer{AccessKey: "AKIDREADER09", Secret: "reader-secret-reader", Region: "us-east-1", Service: "aps"}
	serial := "arn:aws:iam::000000000000:mfa/"
	good := appCode()
	wrong := "123456"
	if good == wrong {
		wrong = "654321"
	}
	for _, c := range []struct {
		name, serial, code, want string
		status                   int
	}{
		{"no code", serial + "d1", "", "AccessDenied", 403}, {"no device", "", good, "AccessDenied", 403},
		{"no digits", serial + "d1", "12345a", "ValidationError", 400}, {"too many", serial + "d1", good + "0", "ValidationError", 400},
		{"too long", serial + strings.Repeat("x", 300), good, "ValidationError", 400},
		{"another user's", serial + "theirs", good, "AccessDenied", 403}, {"nobody's", serial + "d9", good, "AccessDenied", 403},
		{"good", serial + "d1", good, "<SessionToken>", 200}, {"once more", serial + "d1", good, "AccessDenied", 403},
		{"wrong", serial + "d2", wrong, "AccessDenied", 403},
	} {
		_, w := d.token(key, url.Values{"Action": {"GetSessionToken"}, "SerialNumber": {c.serial}, "TokenCode": {c.code}})
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s: %d %s", c.name, w.Code, w.Body)
		}
	}
	last := 0
	for range 8 {
		_, w := d.token(key, url.Values{"Action": {"GetSessionToken"}, "SerialNumber": {serial + "d3"}, "TokenCode": {wrong}})
		last = w.Code
	}
	if last != http.StatusTooManyRequests {
		t.Errorf("after many wrong codes: %d", last)
	}
	if _, w := d.token(key, url.Values{"Action": {"GetCallerIdentity"}}); w.Code != 200 {
		t.Errorf("calls without a code: %d %s", w.Code, w.Body)
	}
}

func TestSecretsOfDevicesAreNotRecorded(t *testing.T) {
	made := map[string]any{"serial_number": "arn", "secret": "GEZD", "secret_uri": "otpauth://totp/x?secret=GEZD", "codes": []any{"123456"}}
	hide(made)
	if text, _ := json.Marshal(made); strings.Contains(string(text), "GEZD") || strings.Contains(string(text), "123456") || !strings.Contains(string(text), `"arn"`) {
		t.Errorf("%s", text)
	}
}
