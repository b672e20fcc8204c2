package main

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// query is one question.
type query struct {
	set, name string
	text      string
	path      string
	form      url.Values
}

// texts are the queries. $N is the metric of that number: G a gauge of each target, T a counter of
// six series for each target, B the buckets of four histograms for each target.
type text struct{ name, expr string }

// dashboards are asked for a range.
func dashboards() []text {
	return []text{
		{"rate-sum", `sum(rate($T0[5m]))`},
		{"rate-by-code", `sum by (code) (rate($T0[5m]))`},
		{"error-ratio", `sum by (namespace) (rate($T0{code=~"5.."}[5m])) / sum by (namespace) (rate($T0[5m]))`},
		{"quantile-one-namespace", `histogram_quantile(0.99, sum by (le) (rate($B{namespace="team-01-prod"}[5m])))`},
		{"raw-one-namespace", `$G0{namespace="team-03-prod"}`},
		{"avg-by", `avg by (namespace) ($G1)`},
		{"topk-services", `topk(5, sum by (service) (rate($T1[5m])))`},
		{"max-over-time", `max by (namespace) (max_over_time($G2[5m]))`},
		{"rate-one-namespace", `rate($T0{namespace="team-05-prod",code="200"}[5m])`},
		{"count-by", `count by (namespace) ($G3)`},
		{"raw-all", `$G4`},
		{"quantile", `quantile(0.9, $G5)`},
		{"ratio-of-series", `$G6 / on (pod) $G7`},
		{"increase-without", `sum without (code, pod, instance, node) (increase($T2[10m]))`},
	}
}

// alerts are asked for an instant.
func alerts() []text {
	return []text{
		{"error-ratio", `sum by (job) (rate($T0{code=~"5.."}[5m])) / sum by (job) (rate($T0[5m])) > 0.05`},
		{"threshold", `$G0 > 1e6`},
		{"absent", `absent($G1{namespace="none"})`},
		{"latency", `histogram_quantile(0.99, sum by (le, job) (rate($B[5m]))) > 1`},
		{"changes", `changes($G2[10m]) > 3`},
		{"predict", `predict_linear($G3[10m], 3600) < 0`},
		{"both", `(avg_over_time($G4[5m]) > 10) and on (pod) ($G5 > 0)`},
		{"count-down", `count by (namespace) ($G6 == 0) > 3`},
		{"increase", `increase($T2{code="500"}[10m]) > 0`},
		{"spread", `max_over_time($G7[10m]) - min_over_time($G7[10m]) > 100`},
	}
}

// heavies are asked for a range too.
func heavies() []text {
	return []text{
		{"wide-rate", `sum by (le, namespace) (rate($B[5m]))`},
		{"wide-quantile", `histogram_quantile(0.99, sum by (le, namespace) (rate($B[5m])))`},
		{"count-all", `count({job!=""})`},
		{"many-names", `sum by (__name__) ({__name__=~".+_total"})`},
		{"topk-series", `topk(10, rate($T0[5m]))`},
		{"quantile-by", `quantile by (namespace) (0.95, rate($T1[5m]))`},
		{"long-windows", `sum by (namespace) (avg_over_time($B[15m]))`},
		{"relabelled", `sum by (team) (label_replace(rate($T2[5m]), "team", "$1", "namespace", "team-(.+)-prod"))`},
		{"subquery", `max_over_time(sum by (namespace) (rate($T3[5m]))[10m:30s])`},
	}
}

// mostSteps is about how many points a panel shows of a long range.
const mostSteps = 288

func seconds(t time.Time) string { return fmt.Sprintf("%.3f", float64(t.UnixMilli())/1000) }

// ranged asks for expr, written as text, at mostSteps or fewer.
func ranged(text, expr string, first, last time.Time) query {
	step := max(15*time.Second, last.Sub(first)/mostSteps).Round(time.Second)
	return query{text: text, path: "/api/v1/query_range", form: url.Values{"query": {expr},
		"start": {seconds(first.Add(time.Minute))}, "end": {seconds(last)}, "step": {fmt.Sprint(step.Seconds())}}}
}

// unmeasured is a question about all of the time that touches no series of those which are measured.
func unmeasured(first, last time.Time) query {
	q := ranged("", `count by (device) ({__name__=~".+_50"})`, first, last)
	q.name = "what is there"
	return q
}

// queries puts the names of metrics into the texts.
func queries(names []string, first, last time.Time) ([]query, error) {
	at := map[string]string{}
	for _, n := range names {
		base, kind := n, "G"
		if s, ok := strings.CutSuffix(n, "_total"); ok {
			base, kind = s, "T"
		} else if s, ok := strings.CutSuffix(n, "_bucket"); ok {
			base, kind = s, "B"
		}
		number, err := strconv.Atoi(base[strings.LastIndexByte(base, '_')+1:])
		if err != nil {
			continue
		}
		switch kind {
		case "T":
			at["$T"+strconv.Itoa(number-30)] = n
		case "B":
			at["$B"] = n
		default:
			at["$G"+strconv.Itoa(number)] = n
		}
	}
	var keys []string
	for k := range at {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int { return len(b) - len(a) })
	fill := func(s string) string {
		for _, k := range keys {
			s = strings.ReplaceAll(s, k, at[k])
		}
		return s
	}
	var out []query
	for set, texts := range map[string][]text{"dashboard": dashboards(), "alert": alerts(), "heavy": heavies()} {
		for _, t := range texts {
			q := ranged(t.expr, fill(t.expr), first, last)
			q.set, q.name = set, set+"/"+t.name
			if set == "alert" {
				q.path = "/api/v1/query"
				q.form = url.Values{"query": {fill(t.expr)}, "time": {seconds(last)}}
			}
			if at["$B"] == "" || strings.Contains(q.form.Get("query"), "$G") {
				return nil, fmt.Errorf("no metric for %s", t.expr)
			}
			out = append(out, q)
		}
	}
	slices.SortStableFunc(out, func(a, b query) int { return strings.Compare(a.set, b.set) })
	return out, nil
}
