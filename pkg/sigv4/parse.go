package sigv4

import (
	"crypto/sha256"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// parseHeader reads an Authorization header and the date that belongs to it.
func parseHeader(r *Request, auth string) (*Claim, error) {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(auth), " ")
	if scheme != Algorithm {
		if strings.HasPrefix(scheme, "AWS4-") {
			return nil, invalid("Signing algorithm %s is not supported.", scheme)
		}
		return nil, incomplete("Authorization header requires the algorithm %s", Algorithm)
	}
	parts := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if _, twice := parts[name]; !ok || twice {
			return nil, incomplete("Authorization header has a malformed or repeated part '%s'", name)
		}
		parts[name] = value
	}
	for _, name := range []string{"Credential", "SignedHeaders", "Signature"} {
		if parts[name] == "" {
			return nil, incomplete("Authorization header requires '%s' parameter.", name)
		}
	}
	if len(parts) != 3 {
		return nil, incomplete("Authorization header has parts beside Credential, SignedHeaders and Signature")
	}
	c := &Claim{signature: parts["Signature"], SessionToken: r.Header.Get("X-Amz-Security-Token")}
	if len(r.Header.Values("X-Amz-Security-Token")) > 1 {
		return nil, incomplete("There is more than one X-Amz-Security-Token header")
	}
	if err := c.fill(parts["Credential"], parts["SignedHeaders"]); err != nil {
		return nil, err
	}
	return c, c.headerDate(r)
}

// headerDate takes the date from the header that is signed.
func (c *Claim) headerDate(r *Request) error {
	var at time.Time
	var err error
	switch amz, plain := r.Header.Values("X-Amz-Date"), r.Header.Values("Date"); {
	case len(amz) == 1 && slices.Contains(c.signed, "x-amz-date"):
		at, err = time.Parse(basicFormat, strings.TrimSpace(amz[0]))
	case len(plain) == 1 && slices.Contains(c.signed, "date"):
		if at, err = http.ParseTime(strings.TrimSpace(plain[0])); err != nil {
			at, err = time.Parse(basicFormat, strings.TrimSpace(plain[0]))
		}
	case len(amz) == 0 && len(plain) == 0:
		return incomplete("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
	default:
		return invalid("'X-Amz-Date' or 'Date' must be a signed header, and be there once.")
	}
	if err != nil {
		return incomplete("Date must be in ISO-8601 'basic format', as 20210929T123456Z.")
	}
	c.Date, c.stamp = at.UTC(), at.UTC().Format(basicFormat)
	return nil
}

// presignParams returns the parameters of a presigned URL, nil if the query is not of one. A
// parameter that cannot be decoded is left out, and one that repeats is marked by a value that fits nothing.
func presignParams(query string) map[string]string {
	if !strings.Contains(query, "X-Amz-Algorithm") {
		return nil
	}
	out := map[string]string{}
	for pair := range strings.SplitSeq(query, "&") {
		k, v, _ := strings.Cut(pair, "=")
		name, err1 := decode(k)
		value, err2 := decode(v)
		if err1 != nil || err2 != nil || !strings.HasPrefix(name, "X-Amz-") {
			continue
		}
		if _, twice := out[name]; twice {
			value = ""
		}
		out[name] = value
	}
	if _, ok := out["X-Amz-Algorithm"]; !ok {
		return nil
	}
	return out
}

func parseQuery(params map[string]string) (*Claim, error) {
	if params["X-Amz-Algorithm"] != Algorithm {
		return nil, invalid("Signing algorithm is not supported.")
	}
	for _, name := range []string{"X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date"} {
		if params[name] == "" {
			return nil, incomplete("AWS query-string parameters must include '%s', once.", name)
		}
	}
	at, err := time.Parse(basicFormat, params["X-Amz-Date"])
	if err != nil {
		return nil, incomplete("X-Amz-Date must be in ISO-8601 'basic format', as 20210929T123456Z.")
	}
	c := &Claim{
		Presigned: true, Date: at, stamp: params["X-Amz-Date"],
		signature: params["X-Amz-Signature"], SessionToken: params["X-Amz-Security-Token"],
	}
	return c, c.fill(params["X-Amz-Credential"], params["X-Amz-SignedHeaders"])
}

func expiry(s string) (time.Duration, error) {
	if s == "" {
		return defaultExpires, nil
	}
	n, err := strconv.Atoi(s)
	d := time.Duration(n) * time.Second
	if err != nil || n < 1 || n > int(maxExpires/time.Second) {
		return 0, incomplete("X-Amz-Expires must be between 1 and %d seconds.", int(maxExpires/time.Second))
	}
	return d, nil
}

// fill reads the credential and the list of signed headers.
func (c *Claim) fill(credential, signed string) error {
	parts := strings.Split(credential, "/")
	if len(parts) != 5 || parts[0] == "" || parts[2] == "" || parts[3] == "" || parts[4] != terminator {
		return incomplete("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/%s.", terminator)
	}
	if len(parts[1]) != 8 || strings.Trim(parts[1], "0123456789") != "" {
		return incomplete("Date in Credential must be of the form YYYYMMDD.")
	}
	c.AccessKey, c.day, c.Region, c.Service = parts[0], parts[1], parts[2], parts[3]
	if !isHex(c.signature, 2*sha256.Size) {
		return incomplete("Signature must be %d lower-case hexadecimal digits.", 2*sha256.Size)
	}
	c.signed = strings.Split(signed, ";")
	for i, name := range c.signed {
		if name == "" || name != strings.ToLower(name) || i > 0 && c.signed[i-1] >= name {
			return incomplete("SignedHeaders must be lower-case names in order, each once.")
		}
	}
	if !slices.Contains(c.signed, "host") {
		return invalid("'Host' must be a 'SignedHeader' in the AWS Authorization.")
	}
	return nil
}

// isHex says whether s is n lower-case hexadecimal digits.
func isHex(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}
