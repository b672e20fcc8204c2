package house

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
)

// Exception excuses one place from one rule.
type Exception struct {
	Rule, Key, Reason string
	Line              int
}

// ReadExceptions parses lines of the form "rule key: reason". A key may hold a colon without a
// space after it.
func ReadExceptions(path string) ([]Exception, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the exceptions: %w", err)
	}
	var all []Exception
	line := 0
	for sc := bufio.NewScanner(bytes.NewReader(data)); sc.Scan(); {
		line++
		text := strings.TrimSpace(sc.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		place, reason, _ := strings.Cut(text, ": ")
		rule, key, ok := strings.Cut(place, " ")
		if reason = strings.TrimSpace(reason); !ok || reason == "" {
			return nil, fmt.Errorf("%s line %d: %q is not \"rule key: reason\"", path, line, text)
		}
		all = append(all, Exception{rule, strings.TrimSpace(key), reason, line})
	}
	return all, nil
}

// Excuse splits found into what no exception covers, and the exceptions that cover nothing.
func Excuse(found []Finding, exceptions []Exception) (left []Finding, unused []Exception) {
	used := make([]bool, len(exceptions))
next:
	for _, f := range found {
		for i, e := range exceptions {
			if e.Rule == f.Rule && e.Key == f.Key {
				used[i] = true
				continue next
			}
		}
		left = append(left, f)
	}
	for i, e := range exceptions {
		if !used[i] {
			unused = append(unused, e)
		}
	}
	return left, unused
}
