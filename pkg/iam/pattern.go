package iam

import "strings"

// pattern is text with wildcards and variables, ready to be matched.
type pattern struct {
	parts []part
	// plain says that there are no variables, so that glob is the pattern itself.
	plain bool
	glob  glob
}

// part is text, or a variable.
type part struct {
	glob     glob
	variable string // key in lower case; empty: text
	fallback *string
}

// glob is bytes to match, of which two values are wildcards.
type glob []int16

const (
	anyBytes int16 = -1 - iota // *
	oneByte                    // ?
)

// compile reads a pattern. Without variables ${...} is text.
func compile(text string, variables bool) pattern {
	p := pattern{plain: true}
	var g glob
	for i := 0; i < len(text); i++ {
		if variables && strings.HasPrefix(text[i:], "${") {
			if end := strings.IndexByte(text[i:], '}'); end > 0 {
				name := strings.TrimSpace(text[i+2 : i+end])
				i += end
				if name == "*" || name == "?" || name == "$" {
					g = append(g, int16(name[0]))
					continue
				}
				p.plain = false
				p.parts = append(p.parts, part{glob: g}, variable(name))
				g = nil
				continue
			}
		}
		switch c := text[i]; c {
		case '*':
			g = append(g, anyBytes)
		case '?':
			g = append(g, oneByte)
		default:
			g = append(g, int16(c))
		}
	}
	p.parts = append(p.parts, part{glob: g})
	if p.plain {
		p.glob = g
	}
	return p
}

// variable reads what stands between the braces: a key, and perhaps a comma and a quoted default.
func variable(name string) part {
	key, rest, has := strings.Cut(name, ",")
	v := part{variable: strings.ToLower(strings.TrimSpace(key))}
	if has {
		text := strings.Trim(strings.TrimSpace(rest), "'")
		v.fallback = &text
	}
	return v
}

// expand puts the values of the request in for variables, as text without wildcards. It reports
// false if one has no single value: then the pattern matches nothing.
func (p *pattern) expand(keys Keys) (glob, bool) {
	if p.plain {
		return p.glob, true
	}
	var g glob
	for i := range p.parts {
		part := &p.parts[i]
		if part.variable == "" {
			g = append(g, part.glob...)
			continue
		}
		values, _ := keys.Values(part.variable)
		text := ""
		switch {
		case len(values) == 1:
			text = values[0]
		case len(values) == 0 && part.fallback != nil:
			text = *part.fallback
		default:
			return nil, false
		}
		for j := range len(text) {
			g = append(g, int16(text[j]))
		}
	}
	return g, true
}

// matches says whether p stands for s.
func (p *pattern) matches(s string, keys Keys) bool {
	g, ok := p.expand(keys)
	return ok && g.matches(s)
}

// matches is the usual walk with one way back, to the last star: linear for most, and never worse than
// the product of both lengths.
func (g glob) matches(s string) bool {
	i, j, star, back := 0, 0, -1, 0
	for j < len(s) {
		switch {
		case i < len(g) && g[i] == anyBytes:
			star, back = i, j
			i++
		case i < len(g) && (g[i] == oneByte || g[i] == int16(s[j])):
			i, j = i+1, j+1
		case star >= 0:
			back++
			i, j = star+1, back
		default:
			return false
		}
	}
	for i < len(g) && g[i] == anyBytes {
		i++
	}
	return i == len(g)
}

// text returns g with its wildcards as they were written.
func (g glob) text() string {
	var b strings.Builder
	for _, c := range g {
		switch c {
		case anyBytes:
			b.WriteByte('*')
		case oneByte:
			b.WriteByte('?')
		default:
			b.WriteByte(byte(c))
		}
	}
	return b.String()
}

// parts of an ARN, up to six of them, split at colons.
func (g glob) split() []glob {
	out := []glob{nil}
	for _, c := range g {
		if c == ':' && len(out) < arnParts {
			out = append(out, nil)
			continue
		}
		out[len(out)-1] = append(out[len(out)-1], c)
	}
	return out
}

// arnParts is how many parts an ARN has.
const arnParts = 6

// matchesARN matches part by part, so that a wildcard does not reach over a colon before the resource.
func (g glob) matchesARN(s string) bool {
	pattern, parts := g.split(), strings.SplitN(s, ":", arnParts)
	if len(pattern) != arnParts || len(parts) != arnParts {
		return g.matches(s) && len(pattern) == 1
	}
	for i := range pattern {
		if !pattern[i].matches(parts[i]) {
			return false
		}
	}
	return true
}
