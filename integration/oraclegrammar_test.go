package integration

import (
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
)

// oracleGrammar makes queries over what oracleAll has.
type oracleGrammar struct{ *rand.Rand }

func (g oracleGrammar) pick(of ...string) string { return of[g.IntN(len(of))] }
func (g oracleGrammar) chance(n int) bool        { return g.IntN(n) == 0 }

func (g oracleGrammar) name() string {
	return g.pick("c_total", "c_total", "d_total", "g", "k", "h_bucket", "nh", "nhgauge", "nhcb", "nhschema", "mixed", "kinds", "target_info", "build_info", "nothing")
}

func (g oracleGrammar) selector() string {
	if g.chance(8) {
		return g.pick(`{__name__=~"c_total|d_total"}`, `{__name__=~"nh.*"}`, `{a="x"}`, `{"näme with dots.and/more"}`, `{"la bel"="ü"}`, `{__name__=~"g|k|mixed",a!="x"}`, `{job="j",a=~"x|y",b="0"}`,
			`{__name__=~".+",a="z",b="1"}`)
	}
	return g.name() + g.pick("", "", "", "", `{a="x"}`, `{a=~"x|y"}`, `{b!="1"}`, `{a="none"}`, `{a=~"(x|y).*",b=""}`, `{only=""}`)
}

func (g oracleGrammar) modifiers() string {
	return g.pick("", "", "", "", "", "", " offset 2h", " offset -13m", " @ 1700001000", " @ end()", " @ start() offset 1h", " @ end() offset -1h", " offset 1d @ start()", " offset (5m + step())", " offset -(1h - 30m)")
}

func (g oracleGrammar) duration() string {
	return g.pick("5m", "15m", "1h", "7h", "1m", "2m", "1d", "90s")
}

func (g oracleGrammar) rangeVector(depth int) string {
	if depth > 0 && g.chance(4) {
		return "(" + g.vector(depth-1) + ")[" + g.pick("15m", "1h", "4h", "90s") + ":" + g.pick("", "5m", "2m", "47s") + "]" + g.modifiers()
	}
	if g.chance(25) {
		return g.selector() + "[" + g.pick("5m + 10m", "2 * 15m", "step()", "max_of(step(), 5m)", "range()", "min_of(1h, 2 * step())") + "]" + g.modifiers()
	}
	return g.selector() + "[" + g.duration() + "]" + g.pick("", "", "", "", "", "", "", " anchored", " smoothed") + g.modifiers()
}

func (g oracleGrammar) number() string {
	return g.pick("0", "1", "2", "0.5", "3.7", "100", "-1", "NaN", "Inf", "0.9")
}

func (g oracleGrammar) scalar(depth int) string {
	switch g.IntN(8) {
	case 0:
		return "time()"
	case 1, 2:
		if depth > 0 {
			return "scalar(" + g.vector(depth-1) + ")"
		}
	case 3:
		if depth > 0 {
			return "(" + g.scalar(depth-1) + g.pick(" + ", " * ", " / ", " > bool ", " % ", " ^ ") + g.scalar(depth-1) + ")"
		}
	case 4:
		return g.pick("pi()", "start()", "end()", "range()", "step()")
	}
	return g.number()
}

func (g oracleGrammar) by() string {
	return g.pick("", "", " by (a)", " by (a, b)", " without (b)", " without (le)", " by (le)", " by (le, a)", " by (__name__)", " by (none)", ` by ("la bel")`, " without (instance, job, b)")
}

func (g oracleGrammar) matching() string {
	return g.pick("", "", "", " on (a)", " on (a, b)", " ignoring (b)", " ignoring (only)", " on (a) group_left ()", " on (a) group_right (b)", " ignoring (b) group_left ()", " on ()", " on (instance) group_left (version)",
		" on (instance) group_left (version, zone)", " on (a, b) group_left (only)", " fill (0)", " on (a) fill_left (1)", " ignoring (b) fill_right (NaN)", " on (a) group_left () fill_left (-1) fill_right (2)")
}

func (g oracleGrammar) vector(depth int) string {
	if depth <= 0 {
		return g.selector() + g.modifiers()
	}
	switch g.IntN(19) {
	case 0, 1:
		return g.overRange(depth)
	case 2, 3, 4, 5:
		return g.pick("sum", "sum", "count", "min", "max", "avg", "avg", "group", "stddev", "stdvar") + g.by() + " (" + g.vector(depth-1) + ")"
	case 6:
		return g.pick("topk", "bottomk", "quantile", "limitk", "limit_ratio") + g.by() + " (" + g.pick("1", "2", "3", "0.9", "1e9", "-0.5", g.scalar(depth-1)) + ", " + g.vector(depth-1) + ")"
	case 7:
		return g.histograms(depth)
	case 8, 9:
		op := g.pick("+", "-", "*", "/", "%", "^", "==", "!=", ">", "<", ">=", "<=", "atan2", "> bool", "== bool", "</", ">/")
		return "(" + g.vector(depth-1) + ") " + op + g.matching() + " (" + g.vector(depth-1) + ")"
	case 10:
		return "(" + g.vector(depth-1) + ") " + g.pick("and", "or", "unless", "or") + g.pick("", " on (a)", " ignoring (b)", " on ()") + " (" + g.vector(depth-1) + ")"
	case 11:
		op := g.pick("+", "-", "*", "/", "%", "^", "==", "!=", ">", "<", ">=", "<=", "> bool", "</", ">/")
		if g.chance(2) {
			return g.scalar(depth-1) + " " + op + " (" + g.vector(depth-1) + ")"
		}
		return "(" + g.vector(depth-1) + ") " + op + " " + g.scalar(depth-1)
	case 12, 13:
		return g.perSeries(depth)
	case 14:
		return g.pick("sort", "sort_desc") + "(" + g.vector(depth-1) + ")"
	case 15:
		return g.pick("sort_by_label", "sort_by_label_desc") + "(" + g.vector(depth-1) + `, "a", "b")`
	case 16:
		return `count_values` + g.by() + ` ("` + g.pick("v", "a", "__name__", "la bel", "") + `", ` + g.vector(depth-1) + ")"
	case 17:
		return "info(" + g.vector(depth-1) + g.pick("", "", `, {version=~".+"}`, `, {__name__="build_info"}`, `, {__name__=~".*_info",zone="eu"}`, `, {zone="us"}`, `, {nope=""}`) + ")"
	}
	v := g.vector(depth - 1)
	return g.pick(`label_replace(`+v+`, "b", "$1", "a", "(x|y)")`, `label_replace(`+v+`, "new", "v$1", "b", "(.*)")`, `label_join(`+v+`, "new", "-", "a", "b")`, `label_replace(`+v+`, "a", "", "a", ".*")`,
		`label_replace(`+v+`, "__name__", "same", "a", ".*")`, `label_replace(`+v+`, "la bel", "${x}", "a", "(?P<x>.)")`, `label_replace(`+v+`, "", "x", "a", ".*")`, `label_replace(`+v+`, "x", "x", "a", "(")`)
}

func (g oracleGrammar) overRange(depth int) string {
	r := g.rangeVector(depth)
	switch g.IntN(8) {
	case 0:
		return "quantile_over_time(" + g.scalar(depth-1) + ", " + r + ")"
	case 1:
		return g.pick("predict_linear("+r+", "+g.scalar(depth-1)+")", "double_exponential_smoothing("+r+", 0.5, "+g.number()+")")
	}
	return g.pick("rate", "rate", "increase", "delta", "irate", "idelta", "sum_over_time", "avg_over_time", "min_over_time", "max_over_time", "count_over_time", "last_over_time", "first_over_time",
		"present_over_time", "absent_over_time", "changes", "resets", "stddev_over_time", "stdvar_over_time", "deriv", "mad_over_time", "ts_of_max_over_time", "ts_of_min_over_time", "ts_of_last_over_time", "ts_of_first_over_time") + "(" + r + ")"
}

func (g oracleGrammar) histograms(depth int) string {
	v := g.pick("h_bucket", "rate(h_bucket[15m])", "sum by (le) (rate(h_bucket[15m]))", "sum by (le, a) (h_bucket)", "nh", "rate(nh[15m])", "sum(rate(nh[15m]))", "nhcb", "sum(nhcb)", "sum by (a) (rate(nhcb[1h]))",
		"nhschema", "sum(nhschema)", "avg(rate(nhschema[1h]))", "sum(nhgauge)", "mixed", "kinds", "sum by (a) (rate(mixed[1h]))", g.vector(depth-1))
	switch g.IntN(5) {
	case 0:
		return "histogram_fraction(" + g.scalar(depth-1) + ", " + g.scalar(depth-1) + ", " + v + ")"
	case 1:
		return `histogram_quantiles(` + v + `, "q", 0.5, ` + g.number() + ")"
	case 2, 3:
		return g.pick("histogram_count", "histogram_sum", "histogram_avg", "histogram_stddev", "histogram_stdvar") + "(" + v + ")"
	}
	return "histogram_quantile(" + g.pick("0.9", "0.5", "2", g.scalar(depth-1)) + ", " + v + ")"
}

func (g oracleGrammar) perSeries(depth int) string {
	v := g.vector(depth - 1)
	if g.chance(6) {
		return g.pick("acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cosh", "deg", "floor", "log10", "log2", "rad", "sin", "sinh", "tan", "tanh", "day_of_month", "day_of_week", "day_of_year", "month", "year") + "(" + v + ")"
	}
	return g.pick("-("+v+")", "+("+v+")", "abs("+v+")", "round("+v+", "+g.scalar(depth-1)+")", "clamp("+v+", "+g.scalar(depth-1)+", "+g.scalar(depth-1)+")", "clamp_min("+v+", 2)", "clamp_max("+v+", -2)", "sgn("+v+")",
		"timestamp("+v+")", "hour("+v+")", "minute()", "sqrt("+v+")", "ln("+v+")", "absent("+v+")", "vector("+g.scalar(depth-1)+")", "ceil("+v+")", "exp("+v+")", "days_in_month("+v+")", "sum("+v+")", "max by (a) ("+v+")")
}

// oracleCall is one request.
type oracleCall struct {
	path string
	form url.Values
}

// call makes one request over data that begin at start; the same in other words come after it, and may be
// answered from what is kept.
func (g oracleGrammar) call(start int64) []oracleCall {
	expr := g.vector(1 + g.IntN(3))
	switch g.IntN(25) {
	case 0:
		expr = g.scalar(2)
	case 1:
		expr = g.rangeVector(1)
	}
	expr = strings.ReplaceAll(expr, "1700001000", strconv.FormatInt((start+oracleSpan/2)/1000, 10))
	form := url.Values{"query": {expr}, "timeout": {"60s"}}
	switch g.IntN(12) {
	case 0:
		form.Set("limit", g.pick("1", "2", "5", "0"))
	case 1:
		form.Set("lookback_delta", g.pick("1m", "30m", "0.5", "1ms", "120"))
	case 2:
		form.Set("stats", g.pick("all", "true", "x"))
	}
	at := start + g.Int64N(oracleSpan+3_600_000) - 1_800_000
	if g.chance(3) { // boundaries of what is split
		const part = int64(oracleSplit / 1e6)
		at = at / part * part
	}
	at += g.Int64N(3) - 1
	if g.chance(3) {
		form.Set("time", seconds(at))
		return []oracleCall{{"query", form}, {"query", form}}
	}
	step := []int64{1, 7_001, 60_000, 300_000, 420_000, 3_600_000, 25_200_000, 47_137}[g.IntN(8)]
	length := step*g.Int64N(40) + g.Int64N(3)*(step/3)
	length = min(length, oracleSpan)
	ranged := func(from, to int64) oracleCall {
		f := url.Values{}
		for k, v := range form {
			f[k] = v
		}
		f.Set("start", seconds(from))
		f.Set("end", seconds(to))
		f.Set("step", strconv.FormatFloat(float64(step)/1000, 'f', 3, 64))
		return oracleCall{"query_range", f}
	}
	shift := g.Int64N(7) * step
	return []oracleCall{ranged(at, at+length), ranged(at+shift, at+length+shift), ranged(at, at+length+shift)}
}
