package sigv4

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// canonicalPaths are the forms of a path that signers sign, the most common first: encoded once more as
// it was sent; the same after dots and double slashes were resolved, which some do while they send
// the original; and as it was sent, by signers with escaping switched off, unless an escape of a percent
// sign is in it, with which it could be the first form of another path. All stand for the path that was
// received, so to accept several gives nothing away.
func (v *Verifier) canonicalPaths(path string) []string {
	if path == "" {
		path = "/"
	}
	out := []string{encode(path, true)}
	forms := []string{encode(clean(path), true)}
	if !strings.Contains(path, "%25") {
		forms = append(forms, path)
	}
	if v.cfg.RawPaths {
		forms = forms[1:]
	}
	for _, p := range forms {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// clean resolves dot segments and collapses slashes, and keeps a slash at the end.
func clean(path string) string {
	var kept []string
	segments := strings.Split(path, "/")
	for _, s := range segments {
		switch s {
		case "", ".":
		case "..":
			if len(kept) > 0 {
				kept = kept[:len(kept)-1]
			}
		default:
			kept = append(kept, s)
		}
	}
	out := "/" + strings.Join(kept, "/")
	if last := segments[len(segments)-1]; len(kept) > 0 && (last == "" || last == "." || last == "..") {
		out += "/"
	}
	return out
}

// canonicalQueries are the forms of a query that signers sign: as the specification says; as it was
// received, because some sort values before they encode them and send what they signed; and its pairs
// sorted as they were received. A token that was added to a presigned URL after signing is left out
// of further forms.
func canonicalQueries(query string, presigned bool) ([]string, error) {
	var pairs []string
	if query != "" {
		pairs = strings.Split(query, "&")
	}
	if presigned {
		pairs = without(pairs, "X-Amz-Signature")
	}
	out, err := queryForms(nil, pairs)
	if err != nil || !presigned {
		return out, err
	}
	if rest := without(pairs, "X-Amz-Security-Token"); len(rest) < len(pairs) {
		return queryForms(out, rest)
	}
	return out, nil
}

func without(pairs []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(pairs), func(p string) bool {
		k, _, _ := strings.Cut(p, "=")
		k, err := decode(k)
		return err == nil && k == name
	})
}

func queryForms(out, pairs []string) ([]string, error) {
	type pair struct{ name, value string }
	encoded := make([]pair, 0, len(pairs))
	for _, p := range pairs {
		if p == "" {
			continue
		}
		k, v, _ := strings.Cut(p, "=")
		name, err := decode(k)
		if err != nil {
			return nil, err
		}
		value, err := decode(v)
		if err != nil {
			return nil, err
		}
		encoded = append(encoded, pair{encode(name, false), encode(value, false)})
	}
	slices.SortFunc(encoded, func(a, b pair) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.value, b.value))
	})
	joined := make([]string, len(encoded))
	for i, p := range encoded {
		joined[i] = p.name + "=" + p.value
	}
	sorted := slices.Sorted(slices.Values(pairs))
	for _, form := range []string{strings.Join(joined, "&"), strings.Join(pairs, "&"), strings.Join(sorted, "&")} {
		if !slices.Contains(out, form) {
			out = append(out, form)
		}
	}
	return out, nil
}

// decode undoes the encoding of a part of a query. Errors: *Error, for a broken escape.
func decode(s string) (string, error) {
	if !strings.ContainsAny(s, "%+") {
		return s, nil
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '+':
			out = append(out, ' ')
		case '%':
			if i+2 >= len(s) {
				return "", incomplete("The query string has a broken percent escape.")
			}
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return "", incomplete("The query string has a broken percent escape.")
			}
			out = append(out, byte(n))
			i += 2
		default:
			out = append(out, s[i])
		}
	}
	return string(out), nil
}

// encode escapes everything but the unreserved characters, and slashes if they are to stay.
func encode(s string, keepSlash bool) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(s) + len(s)/8)
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-_.~", c) >= 0, c == '/' && keepSlash:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}

// canonicalHeaders renders the signed headers. The three that Go's server takes out of the headers are
// put back.
func canonicalHeaders(r *Request, signed []string, host string, bodyBytes int64) string {
	var b strings.Builder
	for _, name := range signed {
		values := r.Header.Values(name)
		switch {
		case name == "host":
			values = []string{host}
		case len(values) > 0:
		case name == "content-length":
			n := r.ContentLength
			if n < 0 {
				n = bodyBytes
			}
			values = []string{strconv.FormatInt(n, 10)}
		case name == "transfer-encoding":
			values = r.TransferEncoding
		}
		b.WriteString(name)
		b.WriteByte(':')
		for i, v := range values {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(strings.Join(strings.Fields(v), " "))
		}
		b.WriteByte('\n')
	}
	return b.String()
}
