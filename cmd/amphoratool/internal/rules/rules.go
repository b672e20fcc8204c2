// Package rules owns the commands that load rules into a server and check and format rule files.
package rules

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/client"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/rulefiles"
)

// Remote is the rules of one tenant on a server.
type Remote struct {
	client.Client
	prefix string
	legacy bool
}

// Declare adds the flags of calls about rules.
func (r *Remote) Declare(f cli.Flagger, e *cli.Env) {
	r.Client.Declare(f, e)
	client.Prefix(f, e, &r.prefix)
	f.Flag("use-legacy-routes", "Use /api/v1/rules, which Cortex has. ($AMPHORA_USE_LEGACY_ROUTES)").
		Default(strconv.FormatBool(e.First("AMPHORA_USE_LEGACY_ROUTES", "MIMIR_USE_LEGACY_ROUTES") == "true")).BoolVar(&r.legacy)
}

func (r *Remote) path(parts ...string) string {
	p := r.prefix + "/config/v1/rules"
	if r.legacy {
		p = "/api/v1/rules"
	}
	for _, part := range parts {
		p += "/" + url.PathEscape(part)
	}
	return p
}

// List returns all rules.
func (r *Remote) List(ctx context.Context) (rulefiles.Set, error) {
	set := rulefiles.Set{}
	body, err := r.Get(ctx, r.path())
	if client.NotFound(err) {
		return set, nil
	} else if err != nil {
		return nil, err
	}
	var all map[string][]rulefiles.Group
	if err := yaml.Unmarshal(body, &all); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	for name, groups := range all {
		set[name] = &rulefiles.Namespace{Name: name, Groups: groups}
	}
	return set, nil
}

// put writes one group.
func (r *Remote) put(ctx context.Context, namespace string, g *rulefiles.Group) error {
	body, err := yaml.Marshal(g)
	if err != nil {
		return fmt.Errorf("write group %q: %w", g.Name, err)
	}
	if _, err := r.Do(ctx, client.Call{Method: http.MethodPost, Path: r.path(namespace), Body: body, Type: "application/yaml"}); err != nil {
		return fmt.Errorf("put %s/%s: %w", namespace, g.Name, err)
	}
	return nil
}

func (r *Remote) remove(ctx context.Context, parts ...string) error {
	if _, err := r.Do(ctx, client.Call{Method: http.MethodDelete, Path: r.path(parts...)}); err != nil && !client.NotFound(err) {
		return fmt.Errorf("delete %s: %w", strings.Join(parts, "/"), err)
	}
	return nil
}

// command is one invocation.
type command struct {
	*cli.Env
	remote  Remote
	sources rulefiles.Sources
	scope   rulefiles.Scope

	format, dir, namespace, group, label string
	only, ignored, skipped, ruleFiles    string
	ruleDirs                             string
	noColour, verbose, dry, inPlace      bool
	strict                               bool
	byServer                             bool
	tests                                []string
	backfill                             backfill
	concurrency                          int
}

// Register adds the family `rules`.
func Register(app *kingpin.Application, e *cli.Env) {
	c := &command{Env: e}
	family := app.Command("rules", "Bring rules to a server, and look after files of them.")
	c.remote.Declare(family, e)
	family.Flag("backend", "There is one kind of server.").Default("mimir").Hidden().Enum("mimir", "cortex", "loki")
	family.Flag("disable-color", "Print without colours, as always.").BoolVar(&c.noColour)
	c.registerRemote(family)
	c.registerSync(family)
	c.registerOffline(family)
	c.registerTest(family)
	c.registerBackfill(family)
}

func (c *command) registerRemote(family *kingpin.CmdClause) {
	list := family.Command("list", "Names of all rule groups.")
	list.Flag("format", "How to print: table, json or yaml.").Default(cli.Table).EnumVar(&c.format, cli.Table, cli.JSON, cli.YAML)
	list.Flag("output", "The same as --format.").Short('o').EnumVar(&c.format, cli.Table, cli.JSON, cli.YAML)
	c.Do(list, c.list)

	show := family.Command("print", "All rules, as YAML.")
	show.Flag("output-dir", "Directory to write them to, a file for each namespace.").StringVar(&c.dir)
	c.Do(show, c.print)

	get := family.Command("get", "One rule group, as YAML.")
	get.Arg("namespace", "Namespace of the group.").Required().StringVar(&c.namespace)
	get.Arg("group", "Name of the group.").Required().StringVar(&c.group)
	get.Flag("output-dir", "Directory to write it to.").StringVar(&c.dir)
	c.Do(get, c.get)

	load := family.Command("load", "Put the groups of files; groups that no file has are left alone.")
	load.Arg("rule-files", "Files of rules.").Required().StringsVar(&c.sources.Files)
	c.Do(load, c.load)

	drop := family.Command("delete", "Delete one rule group.")
	drop.Arg("namespace", "Namespace of the group.").Required().StringVar(&c.namespace)
	drop.Arg("group", "Name of the group.").Required().StringVar(&c.group)
	c.Do(drop, func(ctx context.Context) error {
		return c.open(func() error { return c.remote.remove(ctx, c.namespace, c.group) })
	})

	dropAll := family.Command("delete-namespace", "Delete all rule groups of a namespace.")
	dropAll.Arg("namespace", "Namespace to delete.").Required().StringVar(&c.namespace)
	c.Do(dropAll, func(ctx context.Context) error {
		return c.open(func() error { return c.remote.remove(ctx, c.namespace) })
	})
}

func (c *command) open(do func() error) error {
	if err := c.remote.Open(); err != nil {
		return err
	}
	return do()
}

func (c *command) list(ctx context.Context) error {
	return c.open(func() error {
		set, err := c.remote.List(ctx)
		if err != nil {
			return err
		}
		type row struct {
			Namespace string `json:"namespace" yaml:"namespace"`
			RuleGroup string `json:"rulegroup" yaml:"rulegroup"`
		}
		found := []row{}
		var rows [][]string
		for _, name := range set.Names() {
			for _, g := range set[name].Groups {
				found = append(found, row{name, g.Name})
				rows = append(rows, []string{name, g.Name})
			}
		}
		return c.Print(c.format, found, []string{"Namespace", "Rule Group"}, rows)
	})
}

func (c *command) print(ctx context.Context) error {
	return c.open(func() error {
		set, err := c.remote.List(ctx)
		if err != nil {
			return err
		}
		for _, name := range set.Names() {
			if err := c.write(name, set[name]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *command) get(ctx context.Context) error {
	return c.open(func() error {
		body, err := c.remote.Get(ctx, c.remote.path(c.namespace, c.group))
		if err != nil {
			return err
		}
		var g rulefiles.Group
		if err := yaml.Unmarshal(body, &g); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		return c.write(c.namespace, &rulefiles.Namespace{Name: c.namespace, Groups: []rulefiles.Group{g}})
	})
}

// write prints a namespace, or writes its file.
func (c *command) write(name string, ns *rulefiles.Namespace) error {
	if c.dir != "" {
		if err := os.MkdirAll(c.dir, 0o755); err != nil {
			return err
		}
		path := filepath.Join(c.dir, url.PathEscape(name)+".yaml")
		c.Say("%s", path)
		return rulefiles.Write(path, []*rulefiles.Namespace{ns})
	}
	body, err := yaml.Marshal(ns)
	if err != nil {
		return err
	}
	_, err = c.Out.Write(append([]byte("---\n"), body...))
	return err
}

func (c *command) load(ctx context.Context) error {
	set, err := c.sources.Read()
	if err != nil {
		return err
	}
	return c.open(func() error {
		n := 0
		for _, name := range set.Names() {
			for i := range set[name].Groups {
				if err := c.remote.put(ctx, name, &set[name].Groups[i]); err != nil {
					return err
				}
				n++
			}
		}
		c.Say("%d rule groups of %d namespaces put", n, len(set))
		return nil
	})
}

// split reads a list that is separated by commas.
func split(v string) []string {
	if v == "" {
		return nil
	}
	return strings.Split(v, ",")
}

// all is the rules of files and directories, wherever a command names them.
func (c *command) all() (rulefiles.Set, error) {
	c.sources.Files = append(c.sources.Files, split(c.ruleFiles)...)
	c.sources.Dirs = append(c.sources.Dirs, split(c.ruleDirs)...)
	return c.sources.Read()
}

func (c *command) declareSources(cmd *kingpin.CmdClause) {
	cmd.Arg("rule-files", "Files of rules.").StringsVar(&c.sources.Files)
	cmd.Flag("rule-files", "Files of rules, separated by commas.").StringVar(&c.ruleFiles)
	cmd.Flag("rule-dirs", "Directories with files of rules, separated by commas.").StringVar(&c.ruleDirs)
}

func (c *command) registerSync(family *kingpin.CmdClause) {
	declare := func(cmd *kingpin.CmdClause) {
		c.declareSources(cmd)
		cmd.Flag("namespaces", "Look at these namespaces only, separated by commas.").StringVar(&c.only)
		cmd.Flag("namespaces-regex", "Look at namespaces only that match.").StringVar(&c.scope.OnlyRegexp)
		cmd.Flag("ignored-namespaces", "Leave these namespaces alone, separated by commas.").StringVar(&c.ignored)
		cmd.Flag("ignored-namespaces-regex", "Leave namespaces alone that match.").StringVar(&c.scope.IgnoredRegexp)
		cmd.Flag("verbose", "Show groups that change line by line.").BoolVar(&c.verbose)
	}
	diff := family.Command("diff", "Say what sync would change.")
	declare(diff)
	c.Do(diff, func(ctx context.Context) error {
		_, err := c.compare(ctx)
		return err
	})
	sync := family.Command("sync", "Make the server's rules like those of files: groups that no file has are deleted.")
	declare(sync)
	sync.Flag("concurrency", "Most groups that are put or deleted at once.").Default("8").IntVar(&c.concurrency)
	c.Do(sync, c.sync)
}

// compare says what differs, and returns it.
func (c *command) compare(ctx context.Context) ([]rulefiles.Change, error) {
	want, err := c.all()
	if err != nil {
		return nil, err
	}
	c.scope.Only, c.scope.Ignored = split(c.only), split(c.ignored)
	if err := c.remote.Open(); err != nil {
		return nil, err
	}
	have, err := c.remote.List(ctx)
	if err != nil {
		return nil, err
	}
	changes, err := rulefiles.Compare(have, want, c.scope)
	if err != nil {
		return nil, err
	}
	if len(changes) == 0 {
		c.Say("no changes detected")
		return nil, nil
	}
	count := map[string]int{}
	for _, ch := range changes {
		c.Say("%s %s/%s", ch.Verb(), ch.Namespace, ch.Group)
		count[ch.Verb()]++
		if !c.verbose && ch.Verb() != "update" {
			continue
		}
		for _, line := range ch.Lines() {
			if c.verbose || line[0] != ' ' {
				c.Say("  %s", line)
			}
		}
	}
	c.Say("groups: %d created, %d updated, %d deleted", count["create"], count["update"], count["delete"])
	return changes, nil
}

func (c *command) sync(ctx context.Context) error {
	changes, err := c.compare(ctx)
	if err != nil {
		return err
	}
	if c.concurrency < 1 {
		return errors.New("--concurrency must be positive")
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(c.concurrency)
	for _, ch := range changes {
		g.Go(func() error {
			if ch.New == nil {
				return c.remote.remove(ctx, ch.Namespace, ch.Group)
			}
			return c.remote.put(ctx, ch.Namespace, ch.New)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	c.Say("%s changes made", strconv.Itoa(len(changes)))
	return nil
}
