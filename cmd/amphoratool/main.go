// Command amphoratool administers Amphora and helps those who write clients for it.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// streams are what a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// command is one verb.
type command struct {
	name, doc string
	run       func(ctx context.Context, s streams, args []string) error
}

func commands() []command {
	return []command{
		{"iam", "Administer accounts, users, roles, keys, tokens and policies.", iamCommand},
		{"audit", "Read the record of who did what.", auditCommand},
		{"sigv4", "Check requests that are signed with AWS Signature Version 4.", sigv4Command},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, streams{os.Stdin, os.Stdout, os.Stderr}, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "amphoratool:", err)
		os.Exit(1)
	}
}

// run finds the verb.
func run(ctx context.Context, s streams, args []string) error {
	if len(args) > 0 {
		for _, c := range commands() {
			if c.name == args[0] {
				return c.run(ctx, s, args[1:])
			}
		}
	}
	_, _ = fmt.Fprintln(s.err, "usage: amphoratool <command> ...")
	for _, c := range commands() {
		_, _ = fmt.Fprintf(s.err, "  %-8s %s\n", c.name, c.doc)
	}
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "-help" {
		return nil
	}
	return fmt.Errorf("unknown command %q", args[0])
}
