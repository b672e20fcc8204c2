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

// checkLinks finds relative links of Markdown files that lead to no file, or to no section of a Markdown file.
func checkLinks(t *Tree) []Finding {
	link := regexp.MustCompile(`\]\(([^)\s:#]*)(?:#([^)\s]*))?\)`)
	l := links{root: t.Root, pages: map[string]string{}, sections: map[string]map[string]bool{}}
	for name, data := range t.texts {
		if path.Ext(name) == ".md" {
			l.pages[name] = string(data)
		}
	}
	var found []Finding
	for name, text := range l.pages {
		n := 0
		for line := range strings.Lines(text) {
			n++
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				if f, broken := l.check(name, m[1], m[2]); broken {
					f.Line = n
					found = append(found, f)
				}
			}
		}
	}
	return found
}

// links are the targets that links of the tree may have.
type links struct {
	root     string
	pages    map[string]string          // texts of Markdown files
	sections map[string]map[string]bool // of the pages that were linked to by section
}

// check follows a link of a page to a file, "" for the page itself, and to a section of it, "" for none.
func (l *links) check(page, to, section string) (f Finding, broken bool) {
	at := page
	if to != "" {
		at = path.Join(path.Dir(page), to)
		if _, err := os.Stat(filepath.Join(l.root, filepath.FromSlash(at))); err != nil {
			return Finding{Key: page + ":" + to, What: "links to " + to + ", which does not exist",
				Remedy: "correct the link, or remove it with what it spoke of"}, true
		}
	}
	target, isPage := l.pages[at]
	if section == "" || !isPage {
		return Finding{}, false
	}
	if l.sections[at] == nil {
		l.sections[at] = sectionsOf(target)
	}
	if l.sections[at][section] {
		return Finding{}, false
	}
	return Finding{Key: page + ":" + to + "#" + section, What: "links to the section " + section + " of " + at + ", which has none of that name",
		Remedy: "name a section as its heading is: lower case, a dash for each space, letters, digits, _ and - of the rest"}, true
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
