package sigv4

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

const (
	exampleKey    = "AKIDEXAMPLE"
	exampleSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	exampleToken  = "FwoGZXIvYXdzEXAMPLE+/token=="
	workspace     = "ws-b226cc2a-a446-46a9-933a-ac50479a5568"
	scope         = "Credential=AKIDEXAMPLE/20210929/us-east-1/aps/aws4_request, SignedHeaders="
)

func exampleNow() time.Time { return time.Date(2021, 9, 29, 12, 34, 56, 0, time.UTC) }

// vector is one signed request that must pass.
type vector struct {
	name, method, uri, host string
	headers                 map[string]string
	signed, signature       string // empty: presigned
	body                    string
}

// vectors were signed by aws-sdk-go-v2 and botocore.
func vectors() []vector {
	const aps, data = "aps.us-east-1.amazonaws.com", "aps-workspaces.us-east-1.amazonaws.com"
	return []vector{
		{name: "create workspace", method: "POST", uri: "/workspaces", host: aps,
			headers: map[string]string{"Content-Type": "application/json"},
			signed:  "content-length;content-type;host;x-amz-date", signature: "3d367f85cb3c59df7b82d5ce55abb5daf176804f4af57c2556d36fcd690d6701",
			body: `{"alias":"my-first","clientToken":"6e5b2726-4bb0-4010-a2e3-de91980cf783"}`},
		{name: "remote write with a session", method: "POST", uri: "/workspaces/" + workspace + "/api/v1/remote_write", host: data,
			headers: map[string]string{"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf", "X-Prometheus-Remote-Write-Version": "0.1.0", "X-Amz-Security-Token": exampleToken},
			signed:  "content-encoding;content-length;content-type;host;x-amz-date;x-amz-security-token;x-prometheus-remote-write-version", signature: "6616b69b5411c3b8e491ae929d6a57a92570543416a2786e0a5ef0d602ae0bbd",
			body: "\x00\x00"},
		{name: "series", method: "GET", uri: "/workspaces/" + workspace + "/api/v1/series?match%5B%5D=up&match%5B%5D=a%2Fb&match%5B%5D=a-b&match%5B%5D=%7Bjob%3D%22x%20y%22%7D&start=1&end=2", host: data,
			signed: "host;x-amz-date", signature: "a770d22b54951896f175c0ee7b81d415a13b156e1e390bd94280d934f668ebfa"},
		{name: "series by an older SDK", method: "GET", uri: "/workspaces/" + workspace + "/api/v1/series?end=2&match%5B%5D=a-b&match%5B%5D=a%2Fb&match%5B%5D=up&match%5B%5D=%7Bjob%3D%22x%20y%22%7D&start=1", host: data,
			signed: "host;x-amz-date", signature: "83d7b58cece28e6f9cadc9bbe38e7b19cd1548a192f393fa76dc73652ef1c050"},
		{name: "tags", method: "GET", uri: "/tags/arn%3Aaws%3Aaps%3Aus-east-1%3A123456789012%3Aworkspace%2F" + workspace, host: aps,
			signed: "host;x-amz-date", signature: "9a283a2ffc03e00e4b818b4e5181f34b570d9a1376abc3779ca4225262415189"},
		{name: "presigned", method: "GET", host: data, uri: "/workspaces/" + workspace + "/api/v1/query?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20210929%2Fus-east-1%2Faps%2Faws4_request&X-Amz-Date=20210929T123456Z&X-Amz-Expires=300&X-Amz-Security-Token=FwoGZXIvYXdzEXAMPLE%2B%2Ftoken%3D%3D&X-Amz-SignedHeaders=host&query=up&X-Amz-Signature=542561ed0a32f2fe98ac13b7db9463f7e872125b2754831c342de74ee31742a0"},
		{name: "port", method: "GET", uri: "/workspaces/" + workspace, host: "127.0.0.1:8080",
			signed: "host;x-amz-date", signature: "ca6cb0edf949b773719e39d5aaf47ec9af45c26519fe18fee37a7773e9202b9f"},
	}
}

func (x vector) request() *Request {
	r := &Request{Method: x.method, URI: x.uri, Host: x.host, Header: http.Header{}, ContentLength: int64(len(x.body))}
	for k, v := range x.headers {
		r.Header.Set(k, v)
	}
	if x.signed != "" {
		r.Header.Set("X-Amz-Date", "20210929T123456Z")
		r.Header.Set("Authorization", "AWS4-HMAC-SHA256 "+scope+x.signed+", Signature="+x.signature)
	}
	return r
}

// try verifies r with the example key.
func try(v *Verifier, r *Request, body string, now time.Time) error {
	c, err := v.Parse(r, now)
	if err != nil {
		return err
	}
	return v.Verify(c, r, Key{Secret: exampleSecret}, PayloadHash([]byte(body)), int64(len(body)))
}

func example() *Verifier {
	return New(Config{Regions: []string{"us-east-1"}, Services: []string{"aps"}})
}

func TestRequestsOfRealSignersPass(t *testing.T) {
	v := example()
	for _, x := range vectors() {
		for range 2 { // the second time with a cached key
			if err := try(v, x.request(), x.body, exampleNow()); err != nil {
				t.Errorf("%s: %v", x.name, err)
			}
		}
		if c, err := v.Parse(x.request(), exampleNow()); err != nil || c.AccessKey != exampleKey || (x.headers["X-Amz-Security-Token"] != "" || x.signed == "") != (c.SessionToken == exampleToken) {
			t.Errorf("%s: claim %+v, %v", x.name, c, err)
		}
	}
}

func TestAnyChangeBreaksASignature(t *testing.T) {
	v := example()
	for _, x := range vectors() {
		changes := map[string]func(*Request) string{
			"method": func(r *Request) string { r.Method = "PUT"; return x.body },
			"path":   func(r *Request) string { r.URI = strings.Replace(r.URI, "s", "t", 1); return x.body },
			"query": func(r *Request) string {
				if !strings.Contains(r.URI, "?") {
					r.URI += "?"
				}
				r.URI += "&a=1"
				return x.body
			},
			"host": func(r *Request) string { r.Host += "x"; return x.body },
			"body": func(*Request) string { return x.body + " " },
			"signature": func(r *Request) string {
				if a := r.Header.Get("Authorization"); a != "" {
					r.Header.Set("Authorization", a[:len(a)-1]+string('0'+('1'-a[len(a)-1])&1))
				} else {
					r.URI = strings.Replace(r.URI, "542561e", "542561f", 1)
				}
				return x.body
			},
		}
		for name := range x.headers {
			changes[name] = func(r *Request) string { r.Header.Set(name, r.Header.Get(name)+"x"); return x.body }
		}
		for name, change := range changes {
			r := x.request()
			body := change(r)
			if err := try(v, r, body, exampleNow()); !isCode(err, InvalidSignature) {
				t.Errorf("%s with another %s: %v", x.name, name, err)
			}
		}
		c, err := v.Parse(x.request(), exampleNow())
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Verify(c, x.request(), Key{Secret: exampleSecret + "x"}, PayloadHash([]byte(x.body)), int64(len(x.body))); !isCode(err, InvalidSignature) {
			t.Errorf("%s with another secret: %v", x.name, err)
		}
	}
}

func isCode(err error, code string) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == code
}

func TestTheFormOfASignatureIsChecked(t *testing.T) {
	v := example()
	good := "AWS4-HMAC-SHA256 " + scope + "host;x-amz-date, Signature=" + strings.Repeat("0", 64)
	for auth, code := range map[string]string{
		"AWS4-HMAC-SHA256 ": IncompleteSignature,
		"AWS4-ECDSA-P256-SHA256 Credential=a, SignedHeaders=host, Signature=0": InvalidSignature,
		strings.Replace(good, "SignedHeaders", "Signed", 1):                    IncompleteSignature,
		strings.Replace(good, "/aws4_request", "", 1):                          IncompleteSignature,
		strings.Replace(good, "host;x-amz-date", "x-amz-date;host", 1):         IncompleteSignature,
		strings.Replace(good, "host;x-amz-date", "Host;x-amz-date", 1):         IncompleteSignature,
		strings.Replace(good, "host;x-amz-date", "x-amz-date", 1):              InvalidSignature,
		strings.Replace(good, "host;x-amz-date", "host", 1):                    InvalidSignature,
		strings.Replace(good, "us-east-1", "eu-west-1", 1):                     InvalidSignature,
		strings.Replace(good, "/aps/", "/s3/", 1):                              InvalidSignature,
		strings.Replace(good, "20210929/", "20210928/", 1):                     InvalidSignature,
		good[:len(good)-1]: IncompleteSignature,
		good + ", X=1":     IncompleteSignature,
		good + ", " + scope + "host, Signature=" + strings.Repeat("0", 64): IncompleteSignature,
	} {
		r := &Request{Method: "GET", URI: "/", Host: "a", Header: http.Header{"Authorization": {auth}, "X-Amz-Date": {"20210929T123456Z"}}}
		if _, err := v.Parse(r, exampleNow()); !isCode(err, code) {
			t.Errorf("%s: %v, want %s", auth, err, code)
		}
	}
	if _, err := v.Parse(&Request{Method: "GET", URI: "/", Header: http.Header{}}, exampleNow()); !isCode(err, MissingToken) {
		t.Errorf("no signature: %v", err)
	}
	twice := vectors()[0].request()
	twice.Header.Add("Authorization", twice.Header.Get("Authorization"))
	if _, err := v.Parse(twice, exampleNow()); !isCode(err, IncompleteSignature) {
		t.Errorf("two headers: %v", err)
	}
	both := vectors()[5].request()
	both.Header.Set("Authorization", good)
	if _, err := v.Parse(both, exampleNow()); !isCode(err, IncompleteSignature) {
		t.Errorf("header and query: %v", err)
	}
}

func TestClocksMayDifferByAQuarterOfAnHour(t *testing.T) {
	v := example()
	for off, good := range map[time.Duration]bool{14 * time.Minute: true, -14 * time.Minute: true, 16 * time.Minute: false, -16 * time.Minute: false} {
		err := try(v, vectors()[0].request(), vectors()[0].body, exampleNow().Add(off))
		if (err == nil) != good {
			t.Errorf("off by %s: %v", off, err)
		}
		if e, ok := errors.AsType[*Error](err); ok && (!e.Skewed || e.Status != http.StatusForbidden) {
			t.Errorf("off by %s: %+v", off, e)
		}
	}
	presigned := vectors()[5]
	for off, good := range map[time.Duration]bool{299 * time.Second: true, 301 * time.Second: false, -14 * time.Minute: true} {
		if err := try(v, presigned.request(), "", exampleNow().Add(off)); (err == nil) != good {
			t.Errorf("presigned, off by %s: %v", off, err)
		}
	}
}

func TestASignatureBeforeMidnightPassesAfterIt(t *testing.T) {
	v := example()
	at := time.Date(2021, 9, 29, 23, 59, 58, 0, time.UTC)
	r := signed(t, at, "http://h/workspaces", nil)
	if err := try(v, r, "", at.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
}

// signed returns a GET of url signed at the given time, after change.
func signed(t *testing.T, at time.Time, url string, change func(*http.Request)) *Request {
	t.Helper()
	r, err := http.NewRequest("GET", url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r)
	}
	s := Signer{AccessKey: exampleKey, Secret: exampleSecret, Region: "us-east-1", Service: "aps"}
	if err := s.Sign(r, nil, at); err != nil {
		t.Fatal(err)
	}
	return &Request{Method: r.Method, URI: r.URL.RequestURI(), Host: r.URL.Host, Header: r.Header}
}

func TestUnsignedHeadersMayBeThere(t *testing.T) {
	v := example()
	r := vectors()[4].request()
	r.Header.Set("X-Amz-Content-Sha256", "STREAMING-whatever") // awscurl sends it unsigned
	r.Header.Set("Content-Type", "text/plain")
	if err := try(v, r, "", exampleNow()); err != nil {
		t.Fatal(err)
	}
}

func TestSignedPayloadHashesMustBeTrue(t *testing.T) {
	sha := func(value string) *Request {
		return signed(t, exampleNow(), "http://h/", func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", value) })
	}
	v := example()
	if err := try(v, sha(PayloadHash(nil)), "", exampleNow()); err != nil {
		t.Errorf("true hash: %v", err)
	}
	for _, value := range []string{PayloadHash([]byte("x")), "UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "x"} {
		if err := try(v, sha(value), "", exampleNow()); !isCode(err, InvalidSignature) {
			t.Errorf("%s: %v", value, err)
		}
	}
}

func TestPathsMayBeResolvedBySigners(t *testing.T) {
	r := signed(t, exampleNow(), "http://h/a/b", nil)
	r.URI = "/a//x/../b"
	if err := try(example(), r, "", exampleNow()); err != nil {
		t.Error(err)
	}
	raw := New(Config{RawPaths: true})
	if err := try(raw, r, "", exampleNow()); !isCode(err, InvalidSignature) {
		t.Errorf("raw paths only: %v", err)
	}
}

func TestExplanationsHideTokens(t *testing.T) {
	v := New(Config{Explain: true})
	for _, i := range []int{1, 5} {
		r := vectors()[i].request()
		r.Host = "other"
		err := try(v, r, "", exampleNow())
		if err == nil || !strings.Contains(err.Error(), "Canonical String") || strings.Contains(err.Error(), "EXAMPLE+") || strings.Contains(err.Error(), "EXAMPLE%2B") {
			t.Errorf("%v", err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	for _, x := range vectors() {
		r := x.request()
		f.Add(x.method, x.uri, x.host, r.Header.Get("Authorization"), r.Header.Get("X-Amz-Date"), x.body)
	}
	v := example()
	f.Fuzz(func(t *testing.T, method, uri, host, auth, date, body string) {
		r := &Request{Method: method, URI: uri, Host: host, Header: http.Header{}}
		if auth != "" {
			r.Header.Set("Authorization", auth)
		}
		r.Header.Set("X-Amz-Date", date)
		err := try(v, r, body, exampleNow())
		if e, ok := errors.AsType[*Error](err); err != nil && (!ok || e.Code == "" || e.Status < 400) {
			t.Fatalf("error without a code: %v", err)
		}
	})
}

func FuzzReadRaw(f *testing.F) {
	f.Add("GET /example space/?a=b HTTP/1.1\nHost:example.com\nMy:a\n  b\n\nbody")
	f.Add("POST / HTTP/1.1\r\nHost: a\r\n\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, body, err := ReadRaw(text)
		if err == nil && (r.Method == "" || len(body) > len(text)) {
			t.Fatalf("%+v", r)
		}
	})
}
