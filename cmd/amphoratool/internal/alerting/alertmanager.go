// Package alerting owns the commands for Alertmanager configurations and for alerts.
package alerting

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/alertmanager/config"
	"github.com/prometheus/alertmanager/featurecontrol"
	"github.com/prometheus/alertmanager/matcher/compat"
	"github.com/prometheus/alertmanager/template"
	"github.com/prometheus/common/promslog"
	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/client"
)

// definitionPath is where the configuration of a tenant's alertmanager is put.
const definitionPath = "/api/v1/alerts"

// definition is what lies there.
type definition struct {
	Templates map[string]string `json:"template_files" yaml:"template_files"`
	Config    string            `json:"alertmanager_config" yaml:"alertmanager_config"`
}

// command is one invocation.
type command struct {
	*cli.Env
	server client.Client

	format, dir, file            string
	templates                    []string
	glob, text, kind, data, home string
	utf8                         bool
	verify                       verification
}

// Register adds the families `alertmanager`, `alerts` and `validate`.
func Register(app *kingpin.Application, e *cli.Env) {
	c := &command{Env: e}
	family := app.Command("alertmanager", "Configure the alertmanager of a tenant.")
	c.server.Declare(family, e)
	family.Flag("disable-color", "Print without colours, as always.").Bool()
	family.Flag("utf8-strict-mode", "Read matchers as UTF-8 only, not also as they were read before.").BoolVar(&c.utf8)

	get := family.Command("get", "The configuration.")
	get.Flag("output", "How to print: yaml or json.").Short('o').Default(cli.YAML).EnumVar(&c.format, cli.YAML, cli.JSON)
	get.Flag("output-dir", "Directory to write it and its templates to, instead of printing.").StringVar(&c.dir)
	e.Do(get, c.get)
	drop := family.Command("delete", "Delete the configuration.")
	e.Do(drop, c.drop)
	load := family.Command("load", "Put a configuration.")
	c.declareFiles(load)
	e.Do(load, c.load)
	verify := family.Command("verify", "Check a configuration and its templates, without a server.")
	c.declareFiles(verify)
	e.Do(verify, func(context.Context) error {
		_, err := c.read()
		if err == nil {
			c.Say("the configuration is valid")
		}
		return err
	})
	c.registerMigrate(family)
	c.registerRender(family)
	c.registerAlerts(app)
}

func (c *command) declareFiles(cmd *kingpin.CmdClause) {
	cmd.Arg("config", "File with the configuration.").Required().StringVar(&c.file)
	cmd.Arg("template-files", "Files of templates, or patterns of their names.").StringsVar(&c.templates)
}

func (c *command) get(ctx context.Context) error {
	if err := c.server.Open(); err != nil {
		return err
	}
	body, err := c.server.Get(ctx, definitionPath)
	if err != nil {
		return err
	}
	var d definition
	if err := yaml.Unmarshal(body, &d); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if c.dir != "" {
		return c.save(d)
	}
	if c.format == cli.JSON {
		return c.Print(cli.JSON, d, nil, nil)
	}
	c.Say("%s", strings.TrimSpace(d.Config))
	for _, name := range names(d.Templates) {
		c.Say("\n# %s\n%s", name, strings.TrimSpace(d.Templates[name]))
	}
	return nil
}

func names(files map[string]string) []string {
	out := make([]string, 0, len(files))
	for name := range files {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func (c *command) save(d definition) error {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	write := func(name, text string) error {
		if name != filepath.Base(name) {
			return fmt.Errorf("the server's template %q is not a file name", name)
		}
		c.Say("%s", filepath.Join(c.dir, name))
		return os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o600)
	}
	for _, name := range names(d.Templates) {
		if err := write(name, d.Templates[name]); err != nil {
			return err
		}
	}
	return write("config.yaml", d.Config)
}

func (c *command) drop(ctx context.Context) error {
	if err := c.server.Open(); err != nil {
		return err
	}
	_, err := c.server.Do(ctx, client.Call{Method: http.MethodDelete, Path: definitionPath})
	if err != nil && !client.NotFound(err) {
		return err
	}
	return nil
}

func (c *command) load(ctx context.Context) error {
	d, err := c.read()
	if err != nil {
		return err
	}
	body, err := yaml.Marshal(d)
	if err != nil {
		return err
	}
	if err := c.server.Open(); err != nil {
		return err
	}
	_, err = c.server.Do(ctx, client.Call{Method: http.MethodPost, Path: definitionPath, Body: body, Type: "application/yaml"})
	return err
}

// read reads a configuration with its templates and checks both.
func (c *command) read() (definition, error) {
	d := definition{Templates: map[string]string{}}
	body, err := os.ReadFile(c.file)
	if err != nil {
		return d, err
	}
	d.Config = string(body)
	flags := ""
	if c.utf8 {
		flags = featurecontrol.FeatureUTF8StrictMode
	}
	if err := initMatchers(flags); err != nil {
		return d, err
	}
	conf, err := config.Load(d.Config)
	if err != nil {
		return d, fmt.Errorf("%s: %w", c.file, err)
	}
	paths, err := c.expand()
	if err != nil {
		return d, err
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return d, err
		}
		name := filepath.Base(path)
		if _, twice := d.Templates[name]; twice {
			return d, fmt.Errorf("two templates are named %s", name)
		}
		d.Templates[name] = string(text)
	}
	for _, name := range conf.Templates {
		if _, ok := d.Templates[filepath.Base(name)]; !ok && !strings.ContainsAny(name, "*?[") {
			return d, fmt.Errorf("%s loads the template %s, which is not given", c.file, name)
		}
	}
	_, err = template.FromGlobs(paths)
	return d, err
}

// initMatchers sets how the libraries read matchers, for the whole process.
func initMatchers(features string) error {
	f, err := featurecontrol.NewFlags(promslog.NewNopLogger(), features)
	if err != nil {
		return err
	}
	compat.InitFromFlags(promslog.NewNopLogger(), f)
	return nil
}

// expand returns the files that the names and patterns of templates mean.
func (c *command) expand() ([]string, error) {
	var paths []string
	for _, t := range c.templates {
		found, err := filepath.Glob(t)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t, err)
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("%s: no such template", t)
		}
		paths = append(paths, found...)
	}
	return paths, nil
}

func (c *command) registerRender(family *kingpin.CmdClause) {
	render := family.Command("render", "Expand a text with templates, without a server.")
	render.Flag("template.glob", "Files of templates.").Required().StringVar(&c.glob)
	render.Flag("template.text", "The text to expand.").Required().StringVar(&c.text)
	render.Flag("template.type", "What it is: text or html.").Default("text").EnumVar(&c.kind, "text", "html")
	render.Flag("template.data", "File with the data as JSON; an example if not given.").StringVar(&c.data)
	render.Flag("template.external-url", "Address of the alertmanager in the texts.").Default("http://localhost").StringVar(&c.home)
	c.Do(render, c.render)
}

func (c *command) render(context.Context) error {
	data := example()
	if c.data != "" {
		body, err := os.ReadFile(c.data)
		if err != nil {
			return err
		}
		data = template.Data{}
		if err := json.Unmarshal(body, &data); err != nil {
			return fmt.Errorf("%s: %w", c.data, err)
		}
	}
	if found, err := filepath.Glob(c.glob); err != nil || len(found) == 0 {
		return errors.Join(fmt.Errorf("%s: no such template", c.glob), err)
	}
	t, err := template.FromGlobs([]string{c.glob})
	if err != nil {
		return err
	}
	if data.ExternalURL == "" {
		data.ExternalURL = c.home
	}
	if t.ExternalURL, err = url.Parse(data.ExternalURL); err != nil {
		return err
	}
	expand := t.ExecuteTextString
	if c.kind == "html" {
		expand = t.ExecuteHTMLString
	}
	out, err := expand(c.text, data)
	if err != nil {
		return err
	}
	c.Say("%s", out)
	return nil
}
