// Knockwall hides a host's ports behind knocks.
//
// A rule file (package ruleset) defines doors. The ports of a door look like ports with
// nothing behind them, until a source has knocked at other ports in the right order. The
// daemon (package internal/wall) installs one nftables table for all doors (package
// internal/nft). The kernel logs the knocks to the daemon (package nflog) and asks it about
// new connections (package nfqueue). Package sequence decides what they mean.
//
// Each command has a file in this folder. Commands that need a host with doors build on
// Linux only (host_linux.go). The other commands, which clients need, build on every
// system.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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

// run runs the program with these arguments and streams, and returns its exit code.
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
	if errors.As(err, &wrong) || isRefusedRequest(err) {
		code = exitUsage
	}
	if !errors.Is(err, errSaid) {
		fmt.Fprintf(asError(stderr), "knockwall: %v\n", err)
	}
	return code
}

// usageError is an error in how the program was called or configured.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usage(format string, a ...any) error { return &usageError{fmt.Errorf(format, a...)} }

// errSaid means that the user has already seen the full error.
var errSaid = errors.New("said already")

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "knockwall",
		Short: "Hide a host's ports behind knocks",
		Long: `knockwall makes ports look as if they did not exist, until a client knocks: it
sends SYNs or datagrams to secret ports in the right order. Then the ports are
open for that one source, for new connections, for a short time.`,
		Example: hostExample + `  knockwall knock example.org 4113 27911/udp 1840
  ssh -o ProxyCommand='knockwall connect %h %p 4113 27911/udp 1840' example.org`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          isCommand,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.CompletionOptions.DisableDefaultCmd = true // completionCommand replaces it: only shells of Linux
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages", ".FlagUsagesWrapped 80"))
	root.SuggestionsMinimumDistance = 2 // wrong letters in a mistyped name, at most
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if wrong, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
			kind, _ := pflag.UnquoteUsage(wrong.GetFlag())
			if kind == "" {
				kind = "true or false"
			}
			err = fmt.Errorf("--%s takes %s, and not %q", wrong.GetFlag().Name, kind, wrong.GetValue())
		}
		return usage("%w. See %q", err, c.CommandPath()+" --help")
	})
	root.AddCommand(
		checkCommand(),
		knockCommand(),
		connectCommand(),
		joinCommand(),
		portsCommand(),
		importCommand(),
		versionCommand(),
		completionCommand(),
	)
	root.AddCommand(hostCommands()...)
	root.AddCommand(packagerCommands()...)
	help := helpCommand()
	root.SetHelpCommand(help)
	for _, c := range append(root.Commands(), root, help) {
		c.Args = asUsage(c.Args)
	}
	return root
}

// helpCommand replaces cobra's help command, which accepts any topic.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Explain a command",
		Example: "  knockwall help run",
		Args:    isCommand,
		RunE: func(c *cobra.Command, arguments []string) error {
			about, _, err := c.Root().Find(arguments)
			if err != nil {
				return err
			}
			return about.Help()
		},
	}
}

// isCommand accepts no arguments or the name of a command.
func isCommand(c *cobra.Command, arguments []string) error {
	if len(arguments) == 0 {
		return nil
	}
	root := c.Root()
	if about, _, err := root.Find(arguments[:1]); c != root && err == nil && about != root {
		return takes("at most one argument", 0, 1)(c, arguments)
	}
	if near := root.SuggestionsFor(arguments[0]); len(near) > 0 {
		return fmt.Errorf("there is no command %q; there is %q", arguments[0], near[0])
	}
	return fmt.Errorf("there is no command %q", arguments[0])
}

// takes accepts from least to most arguments. In the error, what describes them.
func takes(what string, least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, arguments []string) error {
		if n := len(arguments); n < least || n > most {
			return fmt.Errorf("%s takes %s", c.Name(), what)
		}
		return nil
	}
}

// noArguments accepts no arguments.
var noArguments = takes("no arguments, only flags", 0, 0)

// asUsage turns the errors of check into usage errors.
func asUsage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, arguments []string) error {
		if err := check(c, arguments); err != nil {
			return usage("%w. See %q", err, c.CommandPath()+" --help")
		}
		return nil
	}
}

// defaultConfig is the folder of rule files that the service reads.
const defaultConfig = "/etc/knockwall.d"

// configFlag adds the flag of every command that reads rule files.
func configFlag(c *cobra.Command) *string {
	return c.Flags().String("config", defaultConfig, "`PATH` of a rule file, or of a folder of *.hcl files")
}
