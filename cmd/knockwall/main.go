// Knockwall hides a host's ports behind knocks.
//
// A rule file (package ruleset) defines doors. The ports of a door look like ports with
// nothing behind them, until a source has knocked at other ports in the right order. The
// daemon (package internal/wall) installs one nftables table for all doors (package
// internal/nft). The kernel logs the knocks to the daemon (package nflog) and asks it about
// new connections (package nfqueue). Package sequence decides what they mean.
//
// Each command has a file in this folder. Commands that need a host with doors build on
// Linux only, and not with the build tag client (host_linux.go). The other commands, which
// clients need, build on every system.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/knockwall/knockwall/internal/build"
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/internal/terminal"
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
	err := elsewhere(arguments)
	if err == nil {
		err = root.ExecuteContext(ctx)
	}
	if err == nil {
		return exitDone
	}
	code := exitFailed
	var wrong *usageError
	if errors.As(err, &wrong) || isRefusedRequest(err) {
		code = exitUsage
	}
	if !errors.Is(err, errSaid) {
		writeError(stderr, err)
	}
	return code
}

// elsewhere returns an error if the arguments name a command that something else than this
// program does, whatever flags follow.
func elsewhere(arguments []string) error {
	if len(arguments) > 1 && arguments[0] == "help" {
		arguments = arguments[1:]
	}
	if len(arguments) == 0 || instead(arguments[0]) == "" {
		return nil
	}
	return usage("%s", instead(arguments[0]))
}

// writeError writes an error in one line, or as wide as the terminal is. Lines that have their
// own breaks stay as they are.
func writeError(stderr io.Writer, err error) {
	text := "knockwall: " + err.Error()
	if columns, is := terminal.Width(stderr); is {
		lines := printable.Wrap(text, int(columns))
		text = strings.Join(lines, "\n")
	}
	fmt.Fprintln(asError(stderr), text)
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
		Version:       build.Version(),
		Args:          isCommand,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.Flags().Bool("version", false, "print the version")
	root.SetVersionTemplate(versionLine() + "\n")
	root.CompletionOptions.DisableDefaultCmd = true // completionCommand replaces it: only shells of Linux
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages", ".FlagUsagesWrapped 80"))
	root.SuggestionsMinimumDistance = 2 // wrong letters in a mistyped name, at most
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if wrong, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
			err = wrongValue(wrong.GetFlag(), wrong.GetValue())
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
		if c.ValidArgsFunction == nil && c.ValidArgs == nil && c != root {
			c.ValidArgsFunction = cobra.NoFileCompletions
		}
	}
	return root
}

// wrongValue returns the error for a value that a flag cannot have.
func wrongValue(f *pflag.Flag, value string) error {
	if _, err := strconv.ParseUint(value, 10, 64); err == nil && f.Value.Type() == "duration" {
		return fmt.Errorf("--%s %s: %[2]s what? Write %[2]ss for seconds or %[2]sm for minutes", f.Name, value)
	}
	kind, _ := pflag.UnquoteUsage(f)
	if kind == "" {
		kind = "true or false"
	}
	return fmt.Errorf("--%s takes %s, and not %q", f.Name, kind, value)
}

// helpCommand replaces cobra's help command, which accepts any topic.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Explain a command",
		Example: "  knockwall help run",
		Args:    isCommand,
		ValidArgsFunction: func(c *cobra.Command, arguments []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(arguments) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []cobra.Completion
			for _, about := range c.Root().Commands() {
				if about.IsAvailableCommand() && strings.HasPrefix(about.Name(), begun) {
					names = append(names, cobra.CompletionWithDesc(about.Name(), about.Short))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
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
			see := c.CommandPath() + " --help"
			if c.Name() == "help" {
				see = c.CommandPath() // which lists the commands
			}
			return usage("%w. See %q", err, see)
		}
		return nil
	}
}

// defaultConfig is the folder of rule files that the service reads.
const defaultConfig = "/etc/knockwall.d"

// configFlag adds the flag of every command that reads rule files.
func configFlag(c *cobra.Command) *string {
	return c.Flags().StringP("config", "c", defaultConfig, "`PATH` of a rule file, or of a folder of *.hcl files")
}
