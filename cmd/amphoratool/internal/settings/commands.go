// Package settings owns the commands that check configuration files and convert those of Mimir and
// Cortex.
package settings

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
	"github.com/amphora-metrics/amphora/pkg/app"
	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/limits"
)

// command is one invocation.
type command struct {
	*cli.Env
	file, flags, out, flagsOut    string
	runtime, runtimeOut, format   string
	verbose, gem, update, include bool
	args                          []string
}

// Register adds the families `config` and `runtime-config`.
func Register(main *kingpin.Application, e *cli.Env) {
	c := &command{Env: e}
	family := main.Command("config", "Check configuration files, and convert those of Mimir and Cortex.")
	convert := family.Command("convert", "Convert a configuration of Mimir or Cortex, and say what was left out.")
	convert.Flag("yaml-file", "Its file.").StringVar(&c.file)
	convert.Flag("flags-file", "Flags, one a line, which win over the file.").StringVar(&c.flags)
	convert.Flag("yaml-out", "Where to write ours; standard output if not given.").StringVar(&c.out)
	convert.Flag("flags-out", "There are no flags to write: all settings go into the file.").Hidden().StringVar(&c.flagsOut)
	convert.Flag("runtime-config-file", "A runtime file with overrides of tenants.").StringVar(&c.runtime)
	convert.Flag("runtime-config-out", "Where to write ours.").StringVar(&c.runtimeOut)
	convert.Flag("update-defaults", "Values are taken over as they are.").Hidden().BoolVar(&c.update)
	convert.Flag("include-defaults", "Values are taken over as they are.").Hidden().BoolVar(&c.include)
	convert.Flag("gem", "Take the file for one of Grafana Enterprise Metrics.").Hidden().BoolVar(&c.gem)
	convert.Flag("verbose", "Also say what was taken over.").Short('v').BoolVar(&c.verbose)
	c.Do(convert, c.convert)

	check := family.Command("check", "Check a configuration file as the server does, and print what differs from the defaults.")
	check.Arg("file", "The file.").Required().ExistingFileVar(&c.file)
	check.Arg("flags", "Flags of the server, after --.").StringsVar(&c.args)
	c.Do(check, c.check)

	inspect := family.Command("inspect", "All settings of the server: key, flag, environment variable, type, default, and what they are for.")
	cli.Format(inspect, &c.format)
	inspect.Arg("words", "Only settings whose key, flag or description have all of these.").StringsVar(&c.args)
	c.Do(inspect, c.inspect)

	runtime := main.Command("runtime-config", "Check files of overrides.")
	validate := runtime.Command("validate", "Check a file of overrides as the server does.")
	validate.Flag("config-file", "The file.").Required().ExistingFileVar(&c.file)
	c.Do(validate, func(context.Context) error {
		data, err := os.ReadFile(c.file)
		if err != nil {
			return err
		}
		if err := limits.Check(c.file, data); err != nil {
			return err
		}
		c.Say("the file is valid")
		return nil
	})
}

func (c *command) check(context.Context) error {
	set := config.NewSet()
	set.Mount("", new(app.Config))
	if _, err := config.Load(set, append([]string{"-config.file=" + c.file}, c.args...), c.Getenv); err != nil {
		return err
	}
	return set.Print(c.Out, config.ModeDiff)
}

// declared is what inspect says of a setting.
type declared struct {
	Key      string   `json:"key" yaml:"key"`
	Flag     string   `json:"flag" yaml:"flag"`
	Variable string   `json:"environment" yaml:"environment"`
	Type     string   `json:"type" yaml:"type"`
	Default  string   `json:"default" yaml:"default"`
	Doc      string   `json:"description" yaml:"description"`
	Expert   bool     `json:"expert" yaml:"expert"`
	Allowed  []string `json:"allowed,omitempty" yaml:"allowed,omitempty"`
}

func (c *command) inspect(context.Context) error {
	set := config.NewSet()
	set.Mount("", new(app.Config))
	all := []declared{}
	var rows [][]string
	for _, f := range set.Fields() {
		said := strings.ToLower(f.Path + " " + f.Flag + " " + f.Doc)
		if slices.ContainsFunc(c.args, func(w string) bool { return !strings.Contains(said, strings.ToLower(w)) }) {
			continue
		}
		all = append(all, declared{f.Path, "-" + f.Flag, f.Env(), f.Type, f.Default, f.Doc, f.Advanced, f.Allowed})
		rows = append(rows, []string{f.Path, "-" + f.Flag, f.Type, f.Default})
	}
	return c.Print(c.format, all, []string{"KEY", "FLAG", "TYPE", "DEFAULT"}, rows)
}

func (c *command) convert(context.Context) error {
	if c.file == "" && c.flags == "" && c.runtime == "" {
		return errors.New("nothing to convert: use --yaml-file, --flags-file or --runtime-config-file")
	}
	conv := newConversion()
	if c.file != "" {
		data, err := os.ReadFile(c.file)
		if err != nil {
			return err
		}
		if err := conv.ConvertYAML(data); err != nil {
			return fmt.Errorf("%s: %w", c.file, err)
		}
	}
	if c.flags != "" {
		data, err := os.ReadFile(c.flags)
		if err != nil {
			return err
		}
		conv.ConvertFlags(string(data))
	}
	if c.file != "" || c.flags != "" {
		doc, err := conv.Document()
		if err != nil {
			return err
		}
		data, err := yaml.Marshal(doc)
		if err != nil {
			return err
		}
		if err := checkDocument(data); err != nil {
			_, _ = fmt.Fprintf(c.Err, "the result needs work: %v\n", err)
		}
		if err := c.write(c.out, data); err != nil {
			return err
		}
	}
	if c.runtime != "" {
		data, err := os.ReadFile(c.runtime)
		if err != nil {
			return err
		}
		out, err := conv.ConvertOverrides(data)
		if err != nil {
			return fmt.Errorf("%s: %w", c.runtime, err)
		}
		if err := c.write(c.runtimeOut, out); err != nil {
			return err
		}
	}
	c.report(conv)
	return nil
}

// checkDocument reads a converted file as the server will.
func checkDocument(data []byte) error {
	set := config.NewSet()
	set.Mount("", new(app.Config))
	return set.LoadYAML("converted", data)
}

func (c *command) write(path string, data []byte) error {
	if path == "" {
		_, err := c.Out.Write(data)
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

// report goes beside the result, which may go to a pipe.
func (c *command) report(conv *Conversion) {
	if c.verbose {
		for _, k := range conv.Kept {
			_, _ = fmt.Fprintf(c.Err, "kept: %s\n", k)
		}
	}
	for _, m := range conv.Moved {
		_, _ = fmt.Fprintf(c.Err, "moved: %s\n", m)
	}
	for _, d := range conv.Dropped {
		_, _ = fmt.Fprintf(c.Err, "left out: %s\n", d)
	}
	_, _ = fmt.Fprintf(c.Err, "settings: %d kept, %d moved, %d left out\n", len(conv.Kept), len(conv.Moved), len(conv.Dropped))
}
