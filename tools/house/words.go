package house

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// largestText is the size over which a tracked file is taken for data and not searched.
const largestText = 1 << 20

// forbiddenWords match what only a build machine knows. They are spelled in pieces, or this file
// would break its own rule.
func forbiddenWords() []*regexp.Regexp {
	var all []*regexp.Regexp
	for _, dir := range []string{"work", "root", "home/[a-z]+", "Users/[A-Za-z]+"} {
		all = append(all, regexp.MustCompile(`(?:^|[^\w.\-/}>*])/`+dir+`/`))
	}
	for _, host := range []string{"proxy", "sum"} {
		all = append(all, regexp.MustCompile(`\b`+host+`\.golang\.`+`org\b`))
	}
	for _, host := range []string{`registry\.npmjs`, `files\.pythonhosted`} {
		all = append(all, regexp.MustCompile(`\b`+host+`\.`+`(org|com)\b`))
	}
	return all
}

func checkWords(t *Tree) []Finding {
	words := forbiddenWords()
	var found []Finding
	for name, data := range t.texts {
		for i, line := range bytes.Split(data, []byte("\n")) {
			for _, w := range words {
				if hit := w.Find(line); hit != nil {
					found = append(found, Finding{Key: name, Line: i + 1, What: "names " + strings.TrimSpace(string(hit)),
						Remedy: "write a relative path, or a variable of the Makefile; what one machine has means nothing on the next"})
				}
			}
		}
	}
	return found
}

// texts yields the files of text with their content, but not what this package's tests break on
// purpose.
func (t *Tree) texts(yield func(string, []byte) bool) {
	for _, name := range t.Text {
		if strings.HasPrefix(name, "tools/house/testdata/") {
			continue
		}
		path := filepath.Join(t.Root, name)
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() || info.Size() > largestText {
			continue
		}
		data, err := os.ReadFile(path)
		if err == nil && bytes.IndexByte(data, 0) < 0 && !yield(name, data) {
			return
		}
	}
}
