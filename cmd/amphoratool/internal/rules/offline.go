package rules

import (
	"context"
	"fmt"
	"slices"

	"github.com/alecthomas/kingpin/v2"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/rulefiles"
)

func (c *command) registerOffline(family *kingpin.CmdClause) {
	lint := family.Command("lint", "Lay out the expressions of files as they are printed elsewhere, in place.")
	c.declareSources(lint)
	lint.Flag("dry-run", "Only say what would change.").Short('n').BoolVar(&c.dry)
	c.Do(lint, func(context.Context) error {
		return c.rewrite(!c.dry, "", func(ns *rulefiles.Namespace) (int, int, error) { return ns.Lint() })
	})

	prepare := family.Command("prepare", "Make aggregations and matches of files keep a label.")
	c.declareSources(prepare)
	prepare.Flag("in-place", "Change the files, instead of writing new ones that end in .result.").Short('i').BoolVar(&c.inPlace)
	prepare.Flag("label", "The label.").Short('l').Default("cluster").StringVar(&c.label)
	prepare.Flag("label-excluded-rule-groups", "Groups to leave alone, separated by commas.").StringVar(&c.skipped)
	c.Do(prepare, func(context.Context) error {
		skipped := split(c.skipped)
		suffix := ".result"
		if c.inPlace {
			suffix = ""
		}
		return c.rewrite(true, suffix, func(ns *rulefiles.Namespace) (int, int, error) {
			return ns.Prepare(c.label, func(g rulefiles.Group) bool { return slices.Contains(skipped, g.Name) })
		})
	})

	check := family.Command("check", "Say what speaks against the rules of files.")
	c.declareSources(check)
	check.Flag("strict", "Fail for opinions too, such as names of recording rules.").BoolVar(&c.strict)
	c.Do(check, c.check)
}

// rewrite changes the namespaces of every file.
func (c *command) rewrite(write bool, suffix string, change func(*rulefiles.Namespace) (rules, changed int, err error)) error {
	set, err := c.all()
	if err != nil {
		return err
	}
	paths, err := c.sources.Paths()
	if err != nil {
		return err
	}
	rules, changed := 0, 0
	for _, path := range paths {
		list, err := rulefiles.ReadFile(path)
		if err != nil {
			return err
		}
		here := 0
		for _, ns := range list {
			all, n, err := change(ns)
			if err != nil {
				return err
			}
			rules, here = rules+all, here+n
		}
		if changed += here; write && (here > 0 || suffix != "") {
			if err := rulefiles.Write(path+suffix, list); err != nil {
				return err
			}
		}
	}
	c.Say("%d rules of %d namespaces looked at, %d changed", rules, len(set), changed)
	return nil
}

func (c *command) check(context.Context) error {
	set, err := c.all()
	if err != nil {
		return err
	}
	opinions, faults := set.Check()
	if c.strict {
		faults, opinions = append(faults, opinions...), nil
	}
	for _, o := range opinions {
		c.Say("warning: %s", o)
	}
	for _, f := range faults {
		c.Say("%s", f)
	}
	if len(faults) > 0 {
		return fmt.Errorf("%d faults found", len(faults))
	}
	return nil
}
