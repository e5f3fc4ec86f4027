package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/migrate"
)

func importCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE",
		Short: "Turn knockd's configuration or Atomicorp's lists into a rule file",
		Long: `import reads knockd.conf or one of Atomicorp's lists of doors, and writes the
same doors as a rule file to stdout. It changes nothing else. FILE may be -, for
stdin. import recognizes the kind of file:

  [openSSH]                       knockd.conf
  22:1001,2002,3003               Atomicorp, simple: port and knocks
  22,2000,SECRET,SECRET           Atomicorp, advanced: port, OTP port, secrets

A command that lets the source in at some ports, by iptables, nft, ufw,
firewall-cmd or ipfw, becomes the ports of a door. A door that takes this back
becomes the close_sequence of the door that it closes. Any other command runs as
before. Comments say what is different.

Read the first lines of the output: as long as your firewall drops a port,
nobody gets in there, with or without knocks.`,
		Example: `  knockwall import /etc/knockd.conf > /etc/knockwall.d/knockd.hcl
  knockwall check

  ssh old.example.org cat /etc/knockd.conf | knockwall import - > knockd.hcl
  knockwall check --config knockd.hcl`,
		Args: takes("one argument, the FILE", 1, 1),
		RunE: func(c *cobra.Command, arguments []string) error {
			name, text, err := readForeign(c.InOrStdin(), arguments[0])
			if err != nil {
				return err
			}
			rules, err := migrate.Import(name, text)
			if wrong, ok := errors.AsType[migrate.Errors](err); ok {
				for _, e := range wrong {
					fmt.Fprintf(c.ErrOrStderr(), "knockwall: %v\n", e)
				}
				return &usageError{errSaid}
			}
			_, err = c.OutOrStdout().Write(rules)
			return err
		},
	}
}

// readForeign reads a file, or stdin. It reads at most migrate.MaxSize bytes and one more,
// so that migrate sees a file that is too large.
func readForeign(stdin io.Reader, path string) (name string, text []byte, err error) {
	name, from := "stdin", stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", nil, err
		}
		defer f.Close()
		name, from = path, f
	}
	text, err = io.ReadAll(io.LimitReader(from, migrate.MaxSize+1))
	if err != nil {
		return "", nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return name, text, nil
}
