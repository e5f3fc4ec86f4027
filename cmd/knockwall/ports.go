package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/terminal"
	"github.com/knockwall/knockwall/ruleset"
)

func portsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "ports DOOR",
		Short: "Print the knocks that open a door now",
		Long: `ports prints the knocks that open a door now, in the form that knock takes. It
is for clients of a rolling sequence, whose knocks change every half minute. It
needs a rule file with the same rolling block, the same secret, and a clock that
is right. It does not contact the host.`,
		Example: `  knock example.org $(knockwall ports --config example.hcl ssh)
  knockwall connect example.org 22 $(knockwall ports ssh)`,
		Args: takes("the name of one DOOR", 1, 1),
	}
	path := configFlag(c)
	c.ValidArgsFunction = completeRuleDoors(path)
	c.RunE = func(c *cobra.Command, arguments []string) error {
		loaded := ruleset.Review(*path)
		if err := terminal.WriteDiagnostics(c.ErrOrStderr(), loaded.Errors()); err != nil {
			return err
		}
		if loaded.Config == nil {
			return &usageError{errSaid}
		}
		d := loaded.Config.Door(arguments[0])
		if d == nil {
			return usage("the rule files have no door %q", arguments[0])
		}
		knocks, err := effective.Knocks(d, time.Now())
		if err != nil {
			return err
		}
		var words []string
		for _, k := range knocks {
			words = append(words, knockWord(k))
		}
		fmt.Fprintln(c.OutOrStdout(), strings.Join(words, " "))
		return nil
	}
	return c
}

// knockWord returns a knock in the form that knockd's client takes. Rule files have another
// form.
func knockWord(p packet.Port) string {
	if p.Protocol == packet.TCP {
		return strconv.Itoa(int(p.Number))
	}
	return strconv.Itoa(int(p.Number)) + ":" + p.Protocol.String()
}
