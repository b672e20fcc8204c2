package ruler

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/prometheus/common/model"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// written is a group with what a decoder and an encoder of structs would lose.
const written = `name: g # of the shop
interval: 90s
rules:
    - record: a:b
      expr: |
        sum(x) # in two
          / 1e2
      labels: {team: "x"}
    - alert: A
      expr: up == 0
      for: 120s
      annotations:
        summary: 'it''s down'
`

func TestAGroupComesBackAsItWasPut(t *testing.T) {
	w := newWorld(t)
	r := w.ruler(t, "a", nil)
	put(t, r, "name: first\nrules:\n    - record: r\n      expr: up\n")
	put(t, r, written)
	put(t, r, "name: last\nrules:\n    - record: r\n      expr: up\n")
	put(t, r, "name: first\nrules:\n    - record: s\n      expr: up\n")
	got, err := r.Rules(t.Context(), "t", "ns", "g")
	if err != nil || string(got) != written {
		t.Errorf("got %v:\n%s\nwant:\n%s", err, got, written)
	}
	all, err := r.Rules(t.Context(), "t", "", "")
	if err != nil {
		t.Fatal(err)
	}
	if s := string(all); !strings.HasPrefix(s, "ns:\n") || strings.Index(s, "name: first") > strings.Index(s, "name: g") || !strings.Contains(s, "record: s") || strings.Contains(s, "90000") {
		t.Errorf("all rules:\n%s", all)
	}
}

func TestANamespaceIsKeptByteForByte(t *testing.T) {
	w := newWorld(t)
	r := w.ruler(t, "a", nil)
	const text = "# made by hand\ngroups:\n - {name: g, rules: [{record: r, expr: up}]}\n"
	if _, _, err := r.Replace(t.Context(), "t", "ns", Replacement{Data: []byte(text)}); err != nil {
		t.Fatal(err)
	}
	if got := string(w.docs.docs["rules/t/ns"].Data); got != text {
		t.Errorf("stored %q, want %q", got, text)
	}
}

func TestMistakesAreNamedWithTheirLinesAndChangeNothing(t *testing.T) {
	w := newWorld(t)
	r := w.ruler(t, "a", nil)
	put(t, r, "name: g\nrules:\n- record: ok\n  expr: up\n")
	for name, c := range map[string]struct{ text, want string }{
		"not YAML":         {"name: [g\n", "line"},
		"unknown key":      {"name: g\nrules:\n- record: x\n  exp: up\n", "line 4: field exp not found"},
		"bad expression":   {"name: g\nrules:\n- record: x\n  expr: sum(\n", "4:9: group \"g\", rule 1, \"x\": could not parse expression"},
		"bad name":         {"name: g\nrules:\n- record: 9 x\n  expr: up\n", "3:11: group \"g\", rule 1, \"9 x\": invalid recording rule name"},
		"bad template":     {"name: g\nrules:\n- alert: x\n  expr: up\n  annotations: {a: '{{ .Nope'}\n", "annotation \"a\""},
		"endless template": {"name: g\nrules:\n- alert: x\n  expr: up\n  annotations: {a: '{{define \"a\"}}{{template \"a\"}}{{template \"a\"}}{{end}}{{template \"a\"}}'}\n", "rule 1, \"x\": template \"a\" calls itself"},
		"no name":          {"rules:\n- record: x\n  expr: up\n", "1:1: Groupname must not be empty"},
		"no rules":         {"name: g\n", "it has no rules"},
		"empty":            {"", "empty"},
		"two documents":    {"name: g\nrules: []\n---\nname: h\n", "only one YAML document"},
		"other tenants":    {"name: g\nsource_tenants: [b]\nrules:\n- record: x\n  expr: up\n", "source_tenants are not allowed"},
		"both kinds":       {"name: g\nrules:\n- {record: x, alert: y, expr: up}\n", "only one of 'record' and 'alert'"},
		"too many rules":   {"name: g\nrules:\n" + strings.Repeat("- {record: x, expr: up}\n", 21), "per-user rules per rule group limit (limit: 20 actual: 21) exceeded"},
		"endless aliases":  {"name: g\nrules: &a [*a]\n", ""},
	} {
		err := r.SetGroup(t.Context(), "t", "ns", []byte(c.text))
		if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	got, err := r.Rules(t.Context(), "t", "ns", "g")
	if err != nil || !strings.Contains(string(got), "record: ok") {
		t.Errorf("the group before is gone: %v %s", err, got)
	}
}

func TestNamesOfNamespacesStayInTheirTenant(t *testing.T) {
	for _, name := range []string{"a", "a/b", "..", ".", "../b/c", "ä ö", "%2e%2e", "a\x00b", ".hidden"} {
		key, err := DocumentKey("t", name)
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		rest, ok := strings.CutPrefix(key, "rules/t/")
		if !ok || strings.ContainsAny(rest, "/\x00") || strings.HasPrefix(rest, ".") {
			t.Errorf("%q: key %q", name, key)
		}
		if p, ok := placeOf(key); !ok || p != (place{"t", name}) {
			t.Errorf("%q: read back as %v", name, p)
		}
	}
	if key, _ := DocumentKey("t", "My-rules_1.yaml"); key != "rules/t/My-rules_1.yaml" {
		t.Errorf("a plain name becomes %q", key)
	}
	if _, err := DocumentKey("t", ""); errs.KindOf(err) != errs.Invalid {
		t.Errorf("empty name: %v", err)
	}
	if _, err := DocumentKey("t", strings.Repeat("x", 300)); errs.KindOf(err) != errs.Invalid {
		t.Errorf("long name: %v", err)
	}
}

// FuzzRuleFilesAreReadAndWrittenAgain puts any text where a namespace is read: it is refused, or can be
// written and read again with the same meaning.
func TestAKeyThatIsNullIsRefused(t *testing.T) {
	const rules = "rules: [{record: r, expr: up, labels: {%s}}]"
	for _, group := range []string{"name: g\n&a : 1\n" + fmt.Sprintf(rules, ""), "name: g\n" + fmt.Sprintf(rules, "null: x"), "name: g\n" + fmt.Sprintf(rules, "~: x")} {
		_, _, err := parseGroup([]byte(group))
		if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "line 2: a key is null") {
			t.Errorf("group %q: %v", group, err)
		}
		_, err = parseDocument([]byte("groups:\n- " + strings.ReplaceAll(group, "\n", "\n  ")))
		if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "line 3: a key is null") {
			t.Errorf("file with %q: %v", group, err)
		}
	}
	if _, _, err := parseGroup([]byte("name: g\n" + fmt.Sprintf(rules, `"null": x`))); err != nil {
		t.Error(err)
	}
}

func FuzzRuleFilesAreReadAndWrittenAgain(f *testing.F) {
	f.Add([]byte("groups:\n- " + strings.ReplaceAll(strings.TrimSpace(written), "\n", "\n  ") + "\n"))
	f.Add([]byte("groups:\n- &a {name: g, rules: [{record: r, expr: up}]}\n- {<<: *a, name: h}\n"))
	f.Add([]byte("groups: [{name: 1, interval: 1m, query_offset: 2s, limit: 3, rules: [{alert: a, expr: 'x', for: 1h, keep_firing_for: 1m}]}]"))
	f.Add([]byte("groups:\n- name: g\n  &a : 1\n  rules: [{record: r, expr: up}]\n"))
	f.Add([]byte("groups: [{name: g, interval, rules: [{record: r, expr: up}]}]"))
	p := parser.NewParser(parser.Options{})
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := parseDocument(data)
		if err != nil {
			if errs.KindOf(err) != errs.Invalid {
				t.Fatalf("refused as %v: %v", errs.KindOf(err), err)
			}
			return
		}
		if len(d.nodes) != len(d.groups) {
			t.Fatalf("%d groups, %d nodes", len(d.groups), len(d.nodes))
		}
		if d.check(model.UTF8Validation, p) != nil || len(d.groups) == 0 {
			return
		}
		out, err := d.bytes()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseDocument(out)
		if err != nil {
			t.Fatalf("%v, written as:\n%s", err, out)
		}
		for i, g := range d.groups {
			if digest(g) != digest(again.groups[i]) {
				t.Fatalf("group %d:\n%s\nread again as:\n%s", i, digest(g), digest(again.groups[i]))
			}
		}
	})
}
