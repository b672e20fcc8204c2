package rules

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/client"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/rulefiles"
	"github.com/amphora-metrics/amphora/pkg/ruletest"
)

// testLimits bound a test on the machine of who runs it.
func testLimits() ruletest.Limits {
	return ruletest.Limits{Samples: 5_000_000, Evaluations: 1_000_000, Time: 10 * time.Minute}
}

func (c *command) registerTest(family *kingpin.CmdClause) {
	test := family.Command("test", "Run unit tests of rules, in the form of promtool's.")
	test.Arg("test-files", "Files of tests.").Required().ExistingFilesVar(&c.tests)
	test.Flag("server", "Run them by the server: rule_files are namespaces of the tenant, or what a file has under rules.").BoolVar(&c.byServer)
	c.Do(test, c.test)
}

func (c *command) test(ctx context.Context) error {
	if c.byServer {
		if err := c.remote.Open(); err != nil {
			return err
		}
	}
	failed := 0
	for _, path := range c.tests {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		run := c.testHere
		if c.byServer {
			run = c.testThere
		}
		report, err := run(ctx, path, data)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if report.Passed {
			c.Say("%s: %d tests passed", path, len(report.Tests))
			continue
		}
		failed++
		c.Say("%s: failed", path)
		for i, t := range report.Tests {
			c.differences(i, &t)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d files have tests that failed", failed, len(c.tests))
	}
	return nil
}

func (c *command) differences(i int, t *ruletest.Result) {
	for _, f := range t.Failures {
		c.Say("  test %d %s: %s %s at %s", i+1, t.Name, f.Kind, f.Name, f.At)
		if f.Error != "" {
			c.Say("    %s", f.Error)
			continue
		}
		c.Say("    expected: %s", listed(f.Expected))
		c.Say("    got:      %s", listed(f.Got))
	}
}

func listed(all []string) string {
	if len(all) == 0 {
		return "nothing"
	}
	return strings.Join(all, "\n              ")
}

// testHere runs a file without a server. Names of rule files are relative to it, and may be patterns.
func (c *command) testHere(ctx context.Context, path string, data []byte) (*ruletest.Report, error) {
	f, err := ruletest.Parse(data)
	if err != nil {
		return nil, err
	}
	if len(f.Rules) > 0 {
		return nil, errors.New("rules in the file itself are for --server; name files in rule_files")
	}
	files := map[string][]byte{}
	for _, pattern := range f.RuleFiles {
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(path), pattern)
		}
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			return nil, errors.Join(fmt.Errorf("%s: no such rule file", pattern), err)
		}
		for _, name := range found {
			if files[name], err = os.ReadFile(name); err != nil {
				return nil, err
			}
		}
	}
	run := ruletest.Runner{Parser: rulefiles.Parser(), Scheme: model.UTF8Validation, Limits: testLimits()}
	return run.Run(ctx, f, files)
}

// testThere lets the server run a file.
func (c *command) testThere(ctx context.Context, _ string, data []byte) (*ruletest.Report, error) {
	body, err := c.remote.Do(ctx, client.Call{Method: http.MethodPost, Path: c.remote.prefix + "/api/v1/rules/test", Body: data, Type: "application/yaml"})
	if err != nil {
		return nil, err
	}
	var answer struct{ Data ruletest.Report }
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return &answer.Data, nil
}
