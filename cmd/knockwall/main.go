// Knockwall hides a host's ports behind knocks.
//
// A rule file (package ruleset) names doors: ports that nobody can tell from
// ports with nothing behind them, until a source has knocked at others in the
// right order. The daemon (package wall, internal) puts up one nftables table
// for them. The kernel logs the knocks to it (package nflog) and asks it about
// new connections (package nfqueue); what they mean is decided in package
// sequence. Each command is a file here.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/control"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2 // wrong usage or configuration
)

// run is the whole program as a function of its arguments and streams.
func run(ctx context.Context, arguments []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(arguments)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	code := exitFailed
	var wrong *usageError
	if errors.As(err, &wrong) {
		code = exitUsage
	}
	if !errors.Is(err, errSaid) {
		fmt.Fprintf(stderr, "knockwall: %v\n", err)
	}
	return code
}

// usageError is an error in how the program was called or configured.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usage(format string, a ...any) error { return &usageError{fmt.Errorf(format, a...)} }

// errSaid stands for what has been told to the user in full already.
var errSaid = errors.New("said already")

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "knockwall",
		Short: "Hide a host's ports behind knocks",
		Long: `knockwall makes ports look as if they did not exist, until somebody knocks:
sends SYNs or datagrams to secret ports in the right order. Then the ports are
open for that one source, for new connections, for a short time.`,
		Example: `  knockwall demo                              see it at work; no root needed
  knockwall check --config ssh.hcl            is this rule file right?
  sudo knockwall run --config ssh.hcl         put up the wall
  knockwall knock example.org 4113 27911/udp 1840
  ssh -o ProxyCommand='knockwall connect %h %p 4113 27911/udp 1840' example.org`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage("%w. See %q", err, c.CommandPath()+" --help")
	})
	root.AddCommand(
		runCommand(),
		checkCommand(),
		rulesetCommand(),
		statusCommand(),
		knockCommand(),
		connectCommand(),
		demoCommand(),
		versionCommand(),
	)
	for _, c := range append(root.Commands(), root) {
		c.Args = asUsage(c.Args)
	}
	return root
}

// asUsage makes wrong arguments an error of usage.
func asUsage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, arguments []string) error {
		if err := check(c, arguments); err != nil {
			return usage("%w. See %q", err, c.CommandPath()+" --help")
		}
		return nil
	}
}

// configFlag adds the flag of every command that reads rule files.
func configFlag(c *cobra.Command) *string {
	return c.Flags().String("config", "/etc/knockwall.d", "`folder or file` with the rules; of a folder, every *.hcl")
}

// controlFlag adds the flag of every command that talks to the daemon.
func controlFlag(c *cobra.Command) *string {
	return c.Flags().String("control", control.DefaultPath, "`path` of the daemon's control socket")
}
