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
	var secrets string
	c := &cobra.Command{
		Use:   "import FILE...",
		Short: "Turn the configuration of another port knocker into a rule file",
		Long: `import reads the configuration of another port knocker, and writes the same
doors as a rule file to stdout. It changes nothing else. FILE may be -, for
stdin. Give several files of one host together. import recognizes their kinds:

  [openSSH]                       knockd.conf
  KNOCKD_OPTS="-i eth1"           /etc/default/knockd
  22:1001,2002,3003               Atomicorp, simple: port and knocks
  22,2000,SECRET,SECRET           Atomicorp, advanced: port, OTP port, secrets
  -A INPUT -m recent ...          knocks by iptables' match recent (rules.v4)
  tcp dport 1 add @one {...}      knocks by sets of nftables
  add action=add-src-to-...       knocks by address lists of MikroTik RouterOS
  SOURCE ANY                      fwknop's access.conf, the only FILE then: what
                                  it includes, and the fwknopd.conf beside it,
                                  are read too

A command that opens ports, by iptables, nft, ipset, ufw, firewall-cmd, ipfw or
pfctl, becomes the ports of a door, and "sleep 30; iptables -D ..." its window.
A door that takes this back becomes the close_sequence of the door that it
closes. Where a door cannot do the same, a comment gives the reason and the line
to write. Any other command runs as before. Comments say what is different.

Read the first lines of the output: as long as your firewall drops a port,
nobody gets in there, with or without knocks.`,
		Example: `  knockwall import /etc/knockd.conf > /etc/knockwall.d/knockd.hcl
  knockwall check

  knockwall import /etc/knockd.conf /etc/default/knockd > knockd.hcl

  sudo knockwall import --secrets /etc/knockwall.secrets \
    /etc/fwknop/access.conf > fwknop.hcl

  ssh old.example.org cat /etc/knockd.conf | knockwall import - > knockd.hcl
  knockwall check --config knockd.hcl`,
		Args:              takes("one FILE or more", 1, migrate.MaxFiles),
		ValidArgsFunction: completeFiles,
		RunE: func(c *cobra.Command, arguments []string) error {
			var files []migrate.File
			for _, path := range arguments {
				f, err := readForeign(c.InOrStdin(), path)
				if err != nil {
					return err
				}
				files = append(files, f)
			}
			rules, err := importFiles(files, secrets)
			if wrong, ok := errors.AsType[migrate.Errors](err); ok {
				for _, e := range wrong {
					fmt.Fprintf(c.ErrOrStderr(), "knockwall: %v\n", e)
				}
				return &usageError{errSaid}
			}
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(rules)
			return err
		},
	}
	c.Flags().StringVar(&secrets, "secrets", "", "write the keys of fwknop to files in the folder `DIR`")
	return c
}

// importFiles turns files into a rule file. secrets is the folder for keys, or "".
func importFiles(files []migrate.File, secrets string) ([]byte, error) {
	if len(files) == 1 && migrate.IsFwknop(files[0].Text) {
		return importFwknop(files[0].Name, files[0].Text, secrets)
	}
	if secrets != "" {
		return nil, usage("--secrets is for the keys in fwknop's access.conf, as the only FILE")
	}
	return migrate.Import(files...)
}

// readForeign reads a file, or stdin. It reads at most migrate.MaxSize bytes and one more,
// so that migrate sees a file that is too large.
func readForeign(stdin io.Reader, path string) (migrate.File, error) {
	name, from := "stdin", stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return migrate.File{}, err
		}
		defer f.Close()
		name, from = path, f
	}
	text, err := io.ReadAll(io.LimitReader(from, migrate.MaxSize+1))
	if err != nil {
		return migrate.File{}, fmt.Errorf("reading %s: %w", name, err)
	}
	return migrate.File{Name: name, Text: text}, nil
}
