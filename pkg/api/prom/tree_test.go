package prom

import (
	"encoding/json"
	"net/url"
	"reflect"
	"testing"
)

func TestSyntaxTreesAreThoseOfPrometheus(t *testing.T) {
	a := newAPI(t, setup{})
	for query, want := range map[string]string{
		`-1.5`:         `{"type":"numberLiteral","val":"-1.5"}`,
		`(a)`:          `{"type":"parenExpr","expr":{"type":"vectorSelector","name":"a","offset":0,"offsetExpr":null,"matchers":[{"name":"__name__","value":"a","type":"="}],"timestamp":null,"startOrEnd":null,"anchored":false,"smoothed":false}}`,
		`"x"`:          `{"type":"stringLiteral","val":"x"}`,
		`time()`:       `{"type":"call","args":[],"func":{"name":"time","argTypes":[],"variadic":0,"returnType":"scalar"}}`,
		`b[5m] @end()`: `{"type":"matrixSelector","name":"b","range":300000,"rangeExpr":null,"offset":0,"offsetExpr":null,"matchers":[{"name":"__name__","value":"b","type":"="}],"timestamp":null,"startOrEnd":"end","anchored":false,"smoothed":false}`,
	} {
		expr, err := a.parser.ParseExpr(query)
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(treeOf(expr))
		if err != nil {
			t.Fatal(err)
		}
		var g, w any
		if json.Unmarshal(got, &g) != nil || json.Unmarshal([]byte(want), &w) != nil || !reflect.DeepEqual(g, w) {
			t.Errorf("%s:\n got %s\nwant %s", query, got, want)
		}
	}
}

// TestEveryConstructHasATree: none of the language makes the translation panic.
func TestEveryConstructHasATree(t *testing.T) {
	a := newAPI(t, setup{})
	for _, query := range []string{
		`sum by (a) (rate(b{c!="d"}[5m] offset 1h))`, `topk without (x) (3, y)`, `a / on (x) group_left (y) b`, `a and ignoring (z) b`, `a == bool 1`,
		`max_over_time(rate(x[1m])[1h:30s] offset 5m)`, `x @ 10`, `histogram_quantile(0.9, x)`, `label_replace(a, "b", "$1", "c", "(.*)")`, `quantile(0.5, x)`, `count_values("v", x)`,
	} {
		if rec := a.call("POST", "/parse_query", "query="+url.QueryEscape(query)); rec.Code != 200 || !json.Valid(rec.Body.Bytes()) {
			t.Errorf("%s: %d %s", query, rec.Code, rec.Body)
		}
	}
}
