package sigv4

import (
	"net/http"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// ReadRaw reads an HTTP request from text, as published collections of signed requests have them:
// more loosely than a server does, with spaces and any bytes in the path, folded header lines, and
// lines that end in LF or CRLF. Errors: Invalid.
func ReadRaw(text string) (*Request, []byte, error) {
	head, body, eol := text, "", "\n"
	if first, _, _ := strings.Cut(text, "\n"); strings.HasSuffix(first, "\r") {
		eol = "\r\n"
	}
	if before, after, ok := strings.Cut(text, eol+eol); ok {
		head, body = before, after
	}
	lines := strings.Split(strings.TrimRight(head, "\r\n"), eol)
	method, rest, ok := strings.Cut(lines[0], " ")
	end := strings.LastIndex(rest, " HTTP/")
	if !ok || method == "" || end < 0 {
		return nil, nil, errs.New(errs.Invalid, "first line is no HTTP request line")
	}
	r := &Request{Method: method, URI: strings.TrimSpace(rest[:end]), Header: http.Header{}, ContentLength: int64(len(body))}
	name := ""
	for _, line := range lines[1:] {
		if line != "" && (line[0] == ' ' || line[0] == '\t') && name != "" { // the value goes on
			values := r.Header[name]
			values[len(values)-1] += " " + strings.TrimSpace(line)
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, nil, errs.New(errs.Invalid, "header line without a colon")
		}
		name = http.CanonicalHeaderKey(strings.TrimSpace(key))
		r.Header[name] = append(r.Header[name], strings.TrimSpace(value))
	}
	r.Host = r.Header.Get("Host")
	delete(r.Header, "Host")
	return r, []byte(body), nil
}
