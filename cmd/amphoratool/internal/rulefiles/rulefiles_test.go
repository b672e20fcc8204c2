package rulefiles

import (
	"slices"
	"strings"
	"testing"
)

func parse(t *testing.T, text string) Set {
	t.Helper()
	list, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	s := Set{}
	for _, ns := range list {
		s[ns.Name] = ns
	}
	return s
}

const one = `namespace: a
groups:
- {name: g, interval: 1m, rules: [{record: x, expr: sum by (job) (up)}, {alert: Down, expr: up == 0, for: 5m}]}
`

func TestOnlyWhatDiffersInMeaningIsAChange(t *testing.T) {
	have := parse(t, one)
	for name, x := range map[string]struct {
		text string
		want []string
	}{
		"the same":              {one, nil},
		"another layout":        {strings.ReplaceAll(one, "expr: up == 0", "expr: |\n      up == 0\n    "), nil},
		"another duration text": {strings.ReplaceAll(one, "interval: 1m", "interval: 60s"), nil},
		"another expression":    {strings.ReplaceAll(one, "== 0", "== 1"), []string{"update a/g"}},
		"another name":          {strings.ReplaceAll(one, "name: g", "name: h"), []string{"delete a/g", "create a/h"}},
		"another namespace":     {strings.ReplaceAll(one, "namespace: a", "namespace: b"), []string{"delete a/g", "create b/g"}},
	} {
		if name == "another layout" {
			x.text = "namespace: a\ngroups:\n- name: g\n  interval: 1m\n  rules:\n  - expr: sum by (job) (up)\n    record: x\n  - alert: Down\n    for: 5m\n    expr: |\n      up == 0\n"
		}
		changes, err := Compare(have, parse(t, x.text), Scope{})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range changes {
			got = append(got, c.Verb()+" "+c.Namespace+"/"+c.Group)
		}
		if !slices.Equal(got, x.want) {
			t.Errorf("%s: %q, want %q", name, got, x.want)
		}
	}
	if _, err := Compare(have, have, Scope{Only: []string{"a"}, Ignored: []string{"b"}}); err == nil {
		t.Error("two scopes at once are accepted")
	}
}

func TestALabelIsKeptThroughAggregationsAndMatches(t *testing.T) {
	for in, want := range map[string]string{
		"sum(up)":                         "sum by (cluster) (up)",
		"sum by (cluster) (up)":           "sum by (cluster) (up)",
		"sum without (pod, cluster) (up)": "sum without (pod) (up)",
		"a / on (job) b":                  "a / on (job, cluster) b",
		"a / ignoring (cluster) b":        "a / b",
		"up":                              "up",
	} {
		s := parse(t, "groups: [{name: g, rules: [{record: x, expr: '"+in+"'}]}]")
		if _, _, err := s[""].Prepare("cluster", func(Group) bool { return false }); err != nil {
			t.Fatal(err)
		}
		if got := s[""].Groups[0].Rules[0].Expr; got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
}

func TestFilesThatNoServerTakesAreRefused(t *testing.T) {
	for _, text := range []string{
		"groups: [{name: g, rules: [{record: x, expr: 'sum('}]}]",
		"groups: [{name: g, rules: [{record: x, alert: y, expr: up}]}]",
		"groups: [{rules: []}]",
		"groups: [{name: g, rules: []}, {name: g, rules: []}]",
		"groups: [{name: g, unknown: 1, rules: []}]",
	} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s is accepted", text)
		}
	}
}

func TestMetricsAreFoundWhereverAnExpressionReadsThem(t *testing.T) {
	got, err := Metrics(`sum(rate(a_total[5m])) / on (x) {__name__="b"} > {__name__=~"c|d"} or {job="e"}`)
	if err != nil || !slices.Equal(got, []string{"a_total", "b", "c", "d"}) {
		t.Errorf("%q, %v", got, err)
	}
}
