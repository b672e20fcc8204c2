// Command amphoratool administers Amphora from the command line.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kingpin/v2"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/alerting"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/analyze"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/blocks"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/buckets"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/exporting"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/inspection"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/loading"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/promqltool"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/querytee"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/remoteread"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/rules"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/settings"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/usage"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/workspaces"
	"github.com/amphora-metrics/amphora/pkg/telemetry"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	e := &cli.Env{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv}
	err := run(ctx, e, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "amphoratool:", err)
		os.Exit(1)
	}
}

// families are the commands, in the order of the help.
func families() []func(*kingpin.Application, *cli.Env) {
	return []func(*kingpin.Application, *cli.Env){
		rules.Register, alerting.Register, promqltool.Register, blocks.Register, remoteread.Register, exporting.Register, analyze.Register, usage.Register,
		buckets.Register, inspection.Register, settings.Register, workspaces.Register, loading.Register, querytee.Register,
	}
}

// errUsage follows a message that was printed already.
var errUsage = errors.New("see amphoratool help")

// run parses the arguments and runs the command they name.
func run(ctx context.Context, e *cli.Env, args []string) error {
	if len(args) > 0 {
		for _, c := range plainCommands() {
			if c.name == args[0] {
				return c.run(ctx, e, args[1:])
			}
		}
	}
	app, ended := application(e)
	switch {
	case len(args) == 0:
		args = []string{"help"}
	case args[0] == "--version": // behind which the library would print the help, too
		args = []string{"version"}
	}
	_, err := app.Parse(twoDashes(args))
	switch {
	case *ended >= 0: // help, the version or a script for shells was printed
		if *ended > 0 {
			return errUsage
		}
		return nil
	case err != nil:
		return err
	}
	return e.Run(ctx)
}

// application declares everything. What ended says is the status with which the library would have
// ended the process, -1 for not at all.
func application(e *cli.Env) (app *kingpin.Application, ended *int) {
	status := -1
	app = kingpin.New("amphoratool", "Administers Amphora, and does for it what mimirtool does for Mimir.")
	app.UsageWriter(e.Out).ErrorWriter(e.Err).Terminate(func(s int) { status = max(status, s) })
	app.HelpFlag.Short('h')
	var level slog.LevelVar
	e.Log = slog.New(slog.NewTextHandler(e.Err, &slog.HandlerOptions{Level: &level}))
	app.Flag("log.level", "What is logged: debug, info, warn or error.").Default("info").SetValue(&logLevel{&level})
	build := telemetry.BuildInfo()
	app.Version("amphoratool " + build.Version + " (" + build.Revision + ")")
	e.Do(app.Command("version", "Print the version."), func(context.Context) error {
		e.Say("amphoratool %s (%s)", build.Version, build.Revision)
		return nil
	})
	for _, c := range plainCommands() { // these parse their flags themselves; here for the help
		app.Command(c.name, c.doc)
	}
	for _, register := range families() {
		register(app, e)
	}
	return app, &status
}

// twoDashes turns flags of query-tee that look as scripts for Mimir's have them into ours: with a second dash, and
// switches without a value. No other command's flags look so.
func twoDashes(args []string) []string {
	if args[0] != "query-tee" {
		return args
	}
	args = slices.Clone(args)
	for i, a := range args {
		name, value, _ := strings.Cut(a, "=")
		long := strings.TrimLeft(name, "-")
		switch {
		case long == name || !strings.Contains(long, "."):
		case value == "true":
			args[i] = "--" + long
		case value == "false":
			args[i] = "--no-" + long
		default:
			args[i] = "--" + strings.TrimLeft(a, "-")
		}
	}
	return args
}

// logLevel is the value of a flag.
type logLevel struct{ *slog.LevelVar }

// Set is part of kingpin.Value.
func (l *logLevel) Set(text string) error { return l.UnmarshalText([]byte(text)) }

// plain is a command that parses its own flags, which have one dash.
type plain struct {
	name, doc string
	run       func(ctx context.Context, e *cli.Env, args []string) error
}

func plainCommands() []plain {
	return []plain{
		{"iam", "Administer accounts, users, roles, keys, tokens and policies.", iamCommand},
		{"audit", "Read the record of who did what.", auditCommand},
		{"sigv4", "Check requests that are signed with AWS Signature Version 4.", sigv4Command},
	}
}
