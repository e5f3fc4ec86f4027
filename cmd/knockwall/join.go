package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/durable"
	"github.com/knockwall/knockwall/internal/hosts"
	"github.com/knockwall/knockwall/internal/invitation"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/terminal"
)

func joinCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "join [flags] LINE",
		Short: "Accept an invitation: write the hosts file",
		Long: `join takes the line that "knockwall invite" printed on a host, and adds the host
to your hosts file, ~/.config/knockwall/hosts.hcl. From then on
"knockwall connect" and "knockwall knock" know how to knock there. join prints
what to add to your ssh_config. With --ssh it adds that itself.

If the file has another block for the host, join changes nothing and says so.`,
		Example: `  knockwall join knockwall:1/host=server.example.org/door=ssh/port=22:tcp/...
  knockwall join --ssh knockwall:1/...           # then: ssh server.example.org
  knockwall join --as home knockwall:1/...       # then: ssh home`,
		Args: takes("the LINE of an invitation", 1, 10), // a terminal may have broken the line
	}
	as := c.Flags().String("as", "", "the `NAME` by which you call the host, if it is another")
	writeSSH := c.Flags().Bool("ssh", false, "add the host to ~/.ssh/config")
	c.RunE = func(c *cobra.Command, arguments []string) error {
		invited, err := invitation.Parse(strings.Join(arguments, ""))
		if err != nil {
			return usage("%w", err)
		}
		if *as != "" {
			if err := invited.Rename(*as); err != nil {
				return usage("%w", err)
			}
		}
		path, err := hosts.UserPath()
		if err != nil {
			return err
		}
		added, read, err := hosts.Join(path, invited)
		if read != nil {
			if err := terminal.WriteDiagnostics(c.ErrOrStderr(), read); err != nil {
				return err
			}
			return &usageError{errSaid}
		}
		if err != nil {
			return err
		}
		out := c.OutOrStdout()
		if added {
			fmt.Fprintf(out, "%s: added %s\n", path, invited.Host)
		} else {
			fmt.Fprintf(out, "%s: has %s already\n", path, invited.Host)
		}
		if invited.Port.Protocol != packet.TCP {
			fmt.Fprintf(out, "\nKnock before you use %s:\n\n  knockwall knock %s\n", invited.Port, invited.Host)
			return nil
		}
		if *writeSSH {
			return addToSSH(c, invited)
		}
		fmt.Fprintf(out, "\nIf ssh is behind the door, add this to ~/.ssh/config:\n\n%s\nOr once:\n\n  ssh -o ProxyCommand='%s'%s %s\n",
			indent(sshStanza(invited)), proxyCommand, sshFlags(invited), invited.Host)
		return nil
	}
	return c
}

const sshPort = 22

// proxyCommand is the ProxyCommand for hosts in the hosts file. %n is the name that the user
// types. %h would be the HostName of ssh_config(5), which the hosts file need not have.
const proxyCommand = "knockwall connect %n %p"

// sshStanza returns the lines of ssh_config(5) for a host.
func sshStanza(i *invitation.Invitation) string {
	s := "Host " + i.Host + "\n"
	if i.User != "" {
		s += "    User " + i.User + "\n"
	}
	return s + sshOptions(i)
}

// sshOptions returns the lines that lead ssh through the door.
func sshOptions(i *invitation.Invitation) string {
	s := ""
	if i.Port.Number != sshPort {
		s += fmt.Sprintf("    Port %d\n", i.Port.Number)
	}
	return s + "    ProxyCommand " + proxyCommand + "\n"
}

// sshFlags returns the flags of ssh that a stanza would make needless.
func sshFlags(i *invitation.Invitation) (flags string) {
	if i.Port.Number != sshPort {
		flags += fmt.Sprintf(" -p %d", i.Port.Number)
	}
	if i.User != "" {
		flags += " -l " + i.User
	}
	return flags
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n  ") + "\n"
}

// addToSSH puts a stanza at the beginning of ~/.ssh/config, as the first value that ssh finds
// is used. Options for all hosts that stood there stay for all hosts. A file that names the
// host already stays as it is.
func addToSSH(c *cobra.Command, i *invitation.Invitation) error {
	home, err := os.UserHomeDir()
	if err != nil {
		return err
	}
	path := filepath.Join(home, ".ssh", "config")
	text, err := os.ReadFile(path)
	mode := fs.FileMode(0o600)
	switch info, statErr := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
	case err != nil:
		return err
	case statErr == nil:
		mode = info.Mode().Perm()
	}
	if block := blockOf(string(text), i.Host); len(block) > 0 {
		if options := sshOptions(i); says(block, options) {
			fmt.Fprintf(c.OutOrStdout(), "%s: has %s already, and nothing is to be done. Now type: ssh %[2]s\n", path, i.Host)
		} else {
			fmt.Fprintf(c.OutOrStdout(), "%s: has %s already. See that its block says:\n\n%s", path, i.Host, options)
		}
		return nil
	}
	stanza := sshStanza(i)
	if len(text) > 0 {
		stanza += "\n"
	}
	if beginsForAll(string(text)) {
		stanza += "Host *\n"
	}
	if err := durable.Replace(path, []byte(stanza+string(text)), mode); err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "%s: added %s. Now type: ssh %[2]s\n", path, i.Host)
	return nil
}

// blockOf returns the words of the lines that an ssh_config(5) has in blocks that name a host.
func blockOf(text, host string) (lines [][]string) {
	inside := false
	for line := range strings.Lines(text) {
		words := sshWords(line)
		if len(words) == 0 {
			continue
		}
		isHost := strings.EqualFold(words[0], "host")
		if isHost || strings.EqualFold(words[0], "match") {
			inside = isHost && slices.Contains(words[1:], host)
		}
		if inside {
			lines = append(lines, words)
		}
	}
	return lines
}

// says reports whether a block has all these options. The first value that it has of an option
// is the one that counts.
func says(block [][]string, options string) bool {
	for line := range strings.Lines(options) {
		want := sshWords(line)
		at := slices.IndexFunc(block, func(words []string) bool { return strings.EqualFold(words[0], want[0]) })
		if at < 0 || !slices.Equal(block[at][1:], want[1:]) {
			return false
		}
	}
	return true
}

// beginsForAll reports whether the text of an ssh_config(5) has options for all hosts before
// its first Host or Match.
func beginsForAll(text string) bool {
	for line := range strings.Lines(text) {
		if words := sshWords(line); len(words) > 0 && !strings.HasPrefix(words[0], "#") {
			return !strings.EqualFold(words[0], "host") && !strings.EqualFold(words[0], "match")
		}
	}
	return false
}

// sshWords returns the words of a line of ssh_config(5). After the first word may be an
// equals sign.
func sshWords(line string) []string {
	return strings.FieldsFunc(line, func(r rune) bool { return unicode.IsSpace(r) || r == '=' })
}
