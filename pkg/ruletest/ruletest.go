// Package ruletest owns unit tests of rules, in the format of promtool: the rules are evaluated in
// memory over invented series, and the results compared with the expectations. Everything is bounded,
// because servers run the files of tenants.
package ruletest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// File is a file of tests.
type File struct {
	RuleFiles          []string       `yaml:"rule_files,omitempty"`
	EvaluationInterval model.Duration `yaml:"evaluation_interval,omitempty"`
	GroupEvalOrder     []string       `yaml:"group_eval_order,omitempty"`
	Tests              []Test         `yaml:"tests"`
	FuzzyCompare       bool           `yaml:"fuzzy_compare,omitempty"`
	// Rules holds rule files by their names in RuleFiles, for those who cannot send files.
	Rules map[string]yaml.Node `yaml:"rules,omitempty"`
}

// Test is series, and what is expected of rules over them.
type Test struct {
	Name           string            `yaml:"name,omitempty"`
	Interval       model.Duration    `yaml:"interval,omitempty"`
	Input          []Input           `yaml:"input_series,omitempty"`
	Alerts         []AlertTest       `yaml:"alert_rule_test,omitempty"`
	Expressions    []ExprTest        `yaml:"promql_expr_test,omitempty"`
	ExternalLabels map[string]string `yaml:"external_labels,omitempty"`
	ExternalURL    string            `yaml:"external_url,omitempty"`
	Start          Start             `yaml:"start_timestamp,omitempty"`
}

// Input is a series whose values are written as in upstream's tests.
type Input struct {
	Series string `yaml:"series"`
	Values string `yaml:"values"`
}

// AlertTest is which alerts of a name fire at a time.
type AlertTest struct {
	At     model.Duration `yaml:"eval_time"`
	Name   string         `yaml:"alertname"`
	Expect []struct {
		Labels      map[string]string `yaml:"exp_labels,omitempty"`
		Annotations map[string]string `yaml:"exp_annotations,omitempty"`
	} `yaml:"exp_alerts,omitempty"`
}

// ExprTest is what an expression is at a time.
type ExprTest struct {
	Expr   string         `yaml:"expr"`
	At     model.Duration `yaml:"eval_time"`
	Expect []struct {
		Labels    string  `yaml:"labels"`
		Value     float64 `yaml:"value"`
		Histogram string  `yaml:"histogram,omitempty"`
	} `yaml:"exp_samples,omitempty"`
}

// Start is when a test begins: seconds since 1970, or RFC 3339.
type Start struct{ time.Time }

// UnmarshalYAML implements yaml.Unmarshaler.
func (s *Start) UnmarshalYAML(n *yaml.Node) error {
	if t, err := time.Parse(time.RFC3339Nano, n.Value); err == nil {
		s.Time = t.UTC()
		return nil
	}
	var seconds float64
	if err := n.Decode(&seconds); err != nil || seconds < -1e11 || seconds > 1e11 {
		return fmt.Errorf("line %d: start_timestamp: %q is no time", n.Line, n.Value)
	}
	s.Time = time.UnixMilli(int64(seconds * 1000)).UTC()
	return nil
}

// defaultInterval is that of evaluations and of samples of files that name none.
const defaultInterval = model.Duration(time.Minute)

// Parse reads a file. Fields that it does not know are refused. Errors: Invalid.
func Parse(data []byte) (*File, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	var f File
	if err := dec.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return nil, errs.New(errs.Invalid, "read the tests: %w", err)
	}
	if len(f.Tests) == 0 {
		return nil, errs.New(errs.Invalid, "the file has no tests")
	}
	if f.EvaluationInterval == 0 {
		f.EvaluationInterval = defaultInterval
	}
	for i := range f.Tests {
		t := &f.Tests[i]
		if t.Interval == 0 {
			t.Interval = f.EvaluationInterval
		}
		for _, a := range t.Alerts {
			if a.Name == "" {
				return nil, errs.New(errs.Invalid, "test %d: an item of alert_rule_test has no alertname", i+1)
			}
		}
	}
	return &f, nil
}

// Limits bound what a file may cost.
type Limits struct {
	Samples     int // of series and of what rules record, in one test
	Evaluations int // of groups, in one test
	Time        time.Duration
}

// Runner runs tests.
type Runner struct {
	Parser parser.Parser
	Scheme model.ValidationScheme
	Limits Limits
	// Lax passes over fields of rules that upstream does not know.
	Lax bool
}

// Report is what became of the tests of a file.
type Report struct {
	Passed bool     `json:"passed"`
	Tests  []Result `json:"tests"`
}

// Result is what became of one test.
type Result struct {
	Name     string    `json:"name,omitempty"`
	Passed   bool      `json:"passed"`
	Failures []Failure `json:"failures,omitempty"`
}

// The kinds of failures.
const (
	FailedAlert      = "alert"
	FailedExpression = "expression"
	FailedEvaluation = "evaluation"
)

// Failure is one difference between what was expected and what came out.
type Failure struct {
	Kind     string   `json:"kind"`
	Name     string   `json:"name"` // of the alert or rule, or the expression
	At       string   `json:"evalTime"`
	Expected []string `json:"expected,omitempty"`
	Got      []string `json:"got,omitempty"`
	Error    string   `json:"error,omitempty"`
}

// Run runs all tests of a file over rules, the contents of rule files by name. Errors: Invalid (the rules or
// series are wrong, or over a limit), Timeout.
func (r *Runner) Run(whole context.Context, f *File, rules map[string][]byte) (*Report, error) {
	ctx, cancel := context.WithTimeout(whole, r.Limits.Time)
	defer cancel()
	out := &Report{Passed: true, Tests: []Result{}}
	for i := range f.Tests {
		t := &f.Tests[i]
		failures, err := r.test(ctx, f, t, rules)
		if whole.Err() != nil {
			return nil, context.Cause(whole)
		}
		if ctx.Err() != nil {
			return nil, errs.New(errs.Timeout, "the tests take longer than %s", r.Limits.Time)
		}
		if err != nil {
			return nil, fmt.Errorf("test %d %s: %w", i+1, t.Name, err)
		}
		out.Tests = append(out.Tests, Result{Name: t.Name, Passed: len(failures) == 0, Failures: failures})
		out.Passed = out.Passed && len(failures) == 0
	}
	return out, nil
}
