//go:build linux && !client

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/secret"
	"github.com/knockwall/knockwall/internal/spa"
	"github.com/knockwall/knockwall/internal/terminal"
	"github.com/knockwall/knockwall/ruleset"
)

func identityCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "identity",
		Short: "Make this host's identity, and print its public half",
		Long: `identity prints the public half of this host's identity: a key that clients need
to send knocks signed with an ssh key. If there is no identity, it makes one.

The private half is in the file that the rule files name (wall { identity }), by
default ` + ruleset.DefaultIdentity(defaultConfig) + `. Only root and the daemon can read it, and
nothing prints it. Whoever has it can read the knocks of clients, but can open
nothing. The public half is no secret. Whoever does not have it cannot tell that
this host takes signed knocks.`,
		Example: `  sudo knockwall identity`,
		Args:    noArguments,
	}
	config := configFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		public, made, err := identityOf(c, *config)
		if err != nil {
			return err
		}
		if made != "" {
			fmt.Fprintf(c.ErrOrStderr(), "knockwall: made %s\n", made)
		}
		fmt.Fprintln(c.OutOrStdout(), public)
		return nil
	}
	return c
}

// identityOf returns the identity of this host. If there is none it makes one; made is the
// path of the new file.
func identityOf(c *cobra.Command, config string) (public spa.Public, made string, err error) {
	path := ruleset.DefaultIdentity(config)
	if _, err := os.Stat(config); err == nil || config != defaultConfig {
		loaded := ruleset.Review(config)
		if err := terminal.WriteDiagnostics(c.ErrOrStderr(), loaded.Errors()); err != nil {
			return public, "", err
		}
		if loaded.Config == nil {
			return public, "", &usageError{errSaid}
		}
		path = loaded.Config.Wall.IdentityPath
		if identity := loaded.Config.Wall.Identity; identity != nil {
			return identity.Public(), "", nil
		}
	}
	if path == "" {
		return public, "", errors.New("the rule files take the identity from a credential or a variable, which only the daemon has: " +
			"let them name a file, make it with this command, and then move it to where the credential comes from")
	}
	text, err := secret.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeIdentity(path)
	}
	if err != nil {
		return public, "", withSudo(err)
	}
	identity, err := spa.ParseIdentity(text.Key())
	if err != nil {
		return public, "", fmt.Errorf("%s: %w", path, err)
	}
	return identity.Public(), "", nil
}

func makeIdentity(path string) (spa.Public, string, error) {
	identity, err := spa.NewIdentity()
	if err != nil {
		return spa.Public{}, "", err
	}
	return identity.Public(), path, createForDaemon(path, string(identity.Text()))
}
