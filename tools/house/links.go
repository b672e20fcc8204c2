package house

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
)

// checkLinks looks where the relative links of Markdown files lead: to a file that exists, and in a Markdown file
// to a section that exists.
func checkLinks(t *Tree) []Finding {
	link := regexp.MustCompile(`\]\(([^)\s:#]*)(?:#([^)\s]*))?\)`)
	pages := map[string]string{}
	for name, data := range t.texts {
		if path.Ext(name) == ".md" {
			pages[name] = string(data)
		}
	}
	sections := map[string]map[string]bool{}
	var found []Finding
	for name, text := range pages {
		n := 0
		for line := range strings.Lines(text) {
			n++
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				to, section := m[1], m[2]
				at := name
				if to != "" {
					at = path.Join(path.Dir(name), to)
					if _, err := os.Stat(filepath.Join(t.Root, filepath.FromSlash(at))); err != nil {
						found = append(found, Finding{Key: name + ":" + to, Line: n, What: "links to " + to + ", which does not exist",
							Remedy: "correct the link, or remove it with what it spoke of"})
						continue
					}
				}
				target, isPage := pages[at]
				if section == "" || !isPage {
					continue
				}
				if sections[at] == nil {
					sections[at] = sectionsOf(target)
				}
				if !sections[at][section] {
					found = append(found, Finding{Key: name + ":" + to + "#" + section, Line: n, What: "links to the section " + section + " of " + at + ", which has none of that name",
						Remedy: "name a section as its heading is: lower case, a dash for each space, letters, digits, _ and - of the rest"})
				}
			}
		}
	}
	return found
}

// sectionsOf are the names by which links reach the headings of a page, as they are made where the repository is read:
// in lower case, a dash for each space, and of all else only letters, digits, dashes and underscores. One that
// is there already gets a number.
func sectionsOf(page string) map[string]bool {
	named := regexp.MustCompile(`<a (?:id|name)="([^"]+)"`)
	linked := regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	out := map[string]bool{}
	times := map[string]int{}
	fenced := false
	for line := range strings.Lines(page) {
		line = strings.TrimRight(line, "\r\n")
		if strings.HasPrefix(strings.TrimLeft(line, " "), "```") {
			fenced = !fenced
			continue
		}
		if fenced {
			continue
		}
		for _, m := range named.FindAllStringSubmatch(line, -1) {
			out[m[1]] = true
		}
		text := strings.TrimLeft(line, "#")
		if level := len(line) - len(text); level == 0 || level > 6 || !strings.HasPrefix(text, " ") {
			continue
		}
		text = linked.ReplaceAllString(strings.TrimSpace(text), "$1")
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, text)
		if n := times[name]; n > 0 {
			out[fmt.Sprintf("%s-%d", name, n)] = true
		}
		out[name] = true
		times[name]++
	}
	return out
}
