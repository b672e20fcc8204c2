package sigv4

import (
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Signer is what a client signs with.
type Signer struct {
	AccessKey, Secret, SessionToken string
	Region, Service                 string
}

// Sign signs r, whose body is body, as the tools of this repository and AWS's clients do.
func (s Signer) Sign(r *http.Request, body []byte, now time.Time) error {
	stamp := now.UTC().Format(basicFormat)
	r.Header.Set("X-Amz-Date", stamp)
	if s.SessionToken != "" {
		r.Header.Set("X-Amz-Security-Token", s.SessionToken)
	}
	c := &Claim{AccessKey: s.AccessKey, day: stamp[:8], stamp: stamp, Region: s.Region, Service: s.Service, signed: []string{"host"}}
	for name := range r.Header {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-amz-") || strings.HasPrefix(lower, "content-") || strings.HasPrefix(lower, "x-prometheus-") {
			c.signed = append(c.signed, lower)
		}
	}
	slices.Sort(c.signed)
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	received := &Request{Method: r.Method, Host: host, Header: r.Header, ContentLength: int64(len(body))}
	queries, err := canonicalQueries(r.URL.RawQuery, false)
	if err != nil {
		return err
	}
	path := r.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	canonical := strings.Join([]string{r.Method, encode(path, true), queries[0], canonicalHeaders(received, c.signed, host, int64(len(body))), strings.Join(c.signed, ";"), PayloadHash(body)}, "\n")
	sum := hex.EncodeToString(c.sign(derive("AWS4"+s.Secret, c.day, s.Region, s.Service), canonical))
	r.Header.Set("Authorization", Algorithm+" Credential="+s.AccessKey+"/"+c.day+"/"+s.Region+"/"+s.Service+"/"+terminator+
		", SignedHeaders="+strings.Join(c.signed, ";")+", Signature="+sum)
	return nil
}
