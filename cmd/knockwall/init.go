//go:build linux && !client

package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/method/fixed"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/people"
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/internal/terminal"
	"github.com/knockwall/knockwall/ruleset"
)

func initCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "init [flags] DOOR PORT...",
		Short: "Write a first rule file for a door",
		Long: `init writes DOOR.hcl to the folder of rule files, with four random knocks. With
--keys the door opens for knocks that are signed with an ssh key instead: init
makes this host's identity, and a file "people" in authorized_keys format. If
you use sudo, it takes the keys in your ~/.ssh/authorized_keys.

If you sit in an ssh session, your address need not knock (trusted). Only root
and the daemon can read the files. init overwrites nothing, refuses ports that
another door guards, and puts nothing in force. It prints what to type next, and
how a client gets in.`,
		Example: `  sudo knockwall init ssh 22 --keys
  sudo knockwall init ssh 22
  sudo knockwall init vpn 51820/udp
  sudo knockwall init web 443 8000-8010/tcp`,
		Args: takes("the name of a DOOR and at least one PORT", 2, 1000),
	}
	config := configFlag(c)
	keyed := c.Flags().Bool("keys", false, "open for knocks signed with an ssh key")
	c.RunE = func(c *cobra.Command, arguments []string) error {
		folder, err := filepath.Abs(*config) // rule files name other files by their whole path
		if err != nil {
			return err
		}
		n := &newDoor{name: arguments[0], folder: folder, keyed: *keyed}
		for _, a := range arguments[1:] {
			p, err := packet.ParsePortRange(a)
			if err != nil {
				return usage("%w", err)
			}
			n.ports = append(n.ports, p)
		}
		if err := n.look(c); err != nil {
			return err
		}
		if err := n.write(c); err != nil {
			return err
		}
		return n.explain(c)
	}
	return c
}

// newDoor is a door for which init writes a rule file.
type newDoor struct {
	name    string
	folder  string // of rule files
	ports   []packet.PortRange
	keyed   bool
	knocks  []packet.Port
	trusted netip.Addr      // of the caller's ssh client; not valid: there is none
	rules   *ruleset.Config // those that exist; nil: none
	files   *ruleset.Loaded // their files; nil: none
}

func (n *newDoor) path() string       { return filepath.Join(n.folder, n.name+".hcl") }
func (n *newDoor) peoplePath() string { return filepath.Join(n.folder, "people") }

// look reads what is there, and refuses what init would not add to.
func (n *newDoor) look(c *cobra.Command) error {
	if session, ok := host.Session(); ok && !session.Client.Addr().IsLoopback() {
		n.trusted = session.Client.Addr()
	}
	info, err := os.Stat(n.folder)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return withSudo(err)
	case !info.IsDir():
		return usage("init adds a file to a folder of rule files, and %s is not a folder", n.folder)
	default:
		if err := unix.Access(n.folder, unix.R_OK|unix.W_OK|unix.X_OK); err != nil {
			return withSudo(&fs.PathError{Op: "read and write", Path: n.folder, Err: err})
		}
		loaded := ruleset.Review(n.folder)
		if err := terminal.WriteDiagnostics(c.ErrOrStderr(), loaded.Errors()); err != nil {
			return err
		}
		if loaded.Config == nil {
			return usage("the rule files that are there have errors: correct them first")
		}
		n.rules, n.files = loaded.Config, loaded
		if err := n.collides(); err != nil {
			return err
		}
	}
	if _, err := os.Lstat(n.path()); err == nil {
		return usage("%s exists already: init overwrites nothing", n.path())
	}
	if n.keyed {
		return nil
	}
	n.knocks, err = randomKnocks(n.isTaken)
	return err
}

// collides returns an error, with its cure, if there is a door of this name, or another one that
// guards the same port as widely.
func (n *newDoor) collides() error {
	const cure = "to change how it opens, edit it there, or delete it and type this again"
	if n.rules.Door(n.name) != nil {
		return usage("the rule files have a door %q already, at %s: %s", n.name, n.files.DoorAt(n.name), cure)
	}
	for _, d := range n.rules.Doors {
		if len(d.To) > 0 || !slices.Equal(d.Interfaces, n.rules.Wall.Interfaces) {
			continue // it is narrower
		}
		for _, p := range n.ports {
			if slices.ContainsFunc(d.Ports, p.Overlaps) {
				return usage("the door %q at %s guards %s already, and what opens it would still open the port: %s", d.Name, n.files.DoorAt(d.Name), p, cure)
			}
		}
	}
	return nil
}

// isTaken reports whether a port cannot be a knock of the new door.
func (n *newDoor) isTaken(p packet.Port) bool {
	if packet.InRanges(p, n.ports) {
		return true
	}
	if n.rules == nil {
		return false
	}
	for _, d := range n.rules.Doors {
		if packet.InRanges(p, d.Ports) {
			return true
		}
	}
	return false
}

// write writes the files: first those that the rule file names.
func (n *newDoor) write(c *cobra.Command) error {
	text := n.text()
	if err := n.try(c, text); err != nil {
		return err
	}
	if n.keyed {
		if made, err := n.makeIdentity(c); err != nil {
			return err
		} else if made != "" {
			fmt.Fprintf(c.OutOrStdout(), "%s: made this host's identity\n", made)
		}
		if err := n.writePeople(c); err != nil {
			return err
		}
	}
	if err := createForDaemon(n.path(), text); err != nil {
		return err
	}
	var ports []string
	for _, p := range n.ports {
		ports = append(ports, p.String())
	}
	fmt.Fprintf(c.OutOrStdout(), "%s: door %s for %s\n", n.path(), n.name, strings.Join(ports, ", "))
	if n.trusted.IsValid() {
		fmt.Fprintf(c.OutOrStdout(), "Your address %s need not knock (trusted).\n", n.trusted)
	}
	return nil
}

// makeIdentity makes this host's identity if there is none, and returns the path of a new one.
func (n *newDoor) makeIdentity(c *cobra.Command) (made string, err error) {
	if n.rules == nil { // The folder is not there yet, so no rule file says where the identity is.
		_, made, err = makeIdentity(ruleset.DefaultIdentity(n.folder))
	} else {
		_, made, err = identityOf(c, n.folder)
	}
	return made, err
}

// text returns the rule file.
func (n *newDoor) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by knockwall init. See knockwall check --help, and the examples in\n# /usr/share/doc/knockwall/examples.\n\ndoor %q {\n", n.name)
	fmt.Fprintf(&b, "  ports = [%s]\n", quoted(n.ports))
	if n.trusted.IsValid() {
		fmt.Fprintf(&b, "  trusted = [%q]    # need not knock\n", n.trusted)
	}
	if n.keyed {
		fmt.Fprintf(&b, "  keys {\n    authorized = [%q]\n  }\n", n.peoplePath())
	} else {
		fmt.Fprintf(&b, "  sequence = [%s]\n", quoted(n.knocks))
	}
	b.WriteString("}\n")
	return b.String()
}

func quoted[T fmt.Stringer](all []T) string {
	var texts []string
	for _, a := range all {
		texts = append(texts, fmt.Sprintf("%q", a))
	}
	return strings.Join(texts, ", ")
}

// try reads the rule file before it is in its place.
func (n *newDoor) try(c *cobra.Command, text string) error {
	folder, err := os.MkdirTemp("", "knockwall")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "door.hcl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	loaded := ruleset.Review(path)
	if err := terminal.WriteDiagnostics(c.ErrOrStderr(), loaded.Errors()); err != nil {
		return err
	}
	if loaded.Config == nil {
		return &usageError{errSaid}
	}
	return nil
}

// knocks of the new door.
const (
	knockCount = 4
	firstKnock = 1024
)

// randomKnocks returns TCP knocks that nobody can guess, in no order. None of them is taken
// or served.
func randomKnocks(isTaken func(packet.Port) bool) ([]packet.Port, error) {
	served, err := host.Ports()
	if err != nil {
		return nil, err
	}
	for {
		var knocks []packet.Port
		var numbers []int
		for len(knocks) < knockCount {
			r, err := rand.Int(rand.Reader, big.NewInt(1<<16-firstKnock))
			if err != nil {
				return nil, err
			}
			p := packet.Port{Number: uint16(firstKnock + r.Int64()), Protocol: packet.TCP}
			if served[p] || isTaken(p) || slices.Contains(knocks, p) || fixed.IsPublishedKnock(p.Number) {
				continue
			}
			knocks, numbers = append(knocks, p), append(numbers, int(p.Number))
		}
		falling := slices.IsSortedFunc(numbers, func(a, b int) int { return b - a })
		if !slices.IsSorted(numbers) && !falling && slices.Max(numbers) > 9999 {
			return knocks, nil
		}
	}
}

// peopleHead begins the people file.
const peopleHead = `# Who may knock: one public key a line, as in ~/.ssh/authorized_keys.
# Add a line with the text of a .pub file, then: knockwall reload
#
#   ssh-ed25519 AAAA... alice@laptop
#   doors="ssh",window="10m",expiry-time="20301231" ssh-ed25519 AAAA... bob
`

// writePeople writes the people file, unless there is one.
func (n *newDoor) writePeople(c *cobra.Command) error {
	if _, err := os.Lstat(n.peoplePath()); err == nil {
		fmt.Fprintf(c.OutOrStdout(), "%s: exists, and says who may knock\n", n.peoplePath())
		return nil
	}
	text := peopleHead
	keys, from := ownKeys()
	if len(keys) > 0 {
		text += "\n# From " + from + ":\n" + strings.Join(keys, "\n") + "\n"
	}
	if err := createForDaemon(n.peoplePath(), text); err != nil {
		return err
	}
	if len(keys) > 0 {
		fmt.Fprintf(c.OutOrStdout(), "%s: %s of %s\n", n.peoplePath(), printable.Count(len(keys), "key"), from)
	} else {
		fmt.Fprintf(c.OutOrStdout(), "%s: empty. Add the public keys of those who may knock\n", n.peoplePath())
	}
	return nil
}

// sudoUser returns the user who called sudo, if somebody did.
func sudoUser() (*user.User, bool) {
	caller, err := user.LookupId(os.Getenv("SUDO_UID"))
	return caller, err == nil
}

// ownKeys returns the lines in the authorized_keys of the user who called sudo, or else of
// this user. They are lines that a people file can have.
func ownKeys() (lines []string, from string) {
	home, err := os.UserHomeDir()
	if caller, ok := sudoUser(); ok {
		home, err = caller.HomeDir, nil
	}
	if err != nil {
		return nil, ""
	}
	path := filepath.Join(home, ".ssh", "authorized_keys")
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // it may be a pipe
	if err != nil {
		return nil, ""
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, ""
	}
	text, err := io.ReadAll(io.LimitReader(f, people.MaxSize))
	if err != nil {
		return nil, ""
	}
	list := people.NewList()
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		before := list.Len()
		list.Authorize(path, []byte(line))
		if list.Len() > before { // it is no comment, no duplicate, and has no error
			lines = append(lines, line)
		}
	}
	return lines, path
}

// explain prints what to do next.
func (n *newDoor) explain(c *cobra.Command) error {
	loaded := ruleset.Review(n.folder)
	if err := terminal.WriteDiagnostics(c.ErrOrStderr(), loaded.Errors()); err != nil {
		return err
	}
	if loaded.Config == nil {
		return &usageError{errSaid}
	}
	out := c.OutOrStdout()
	next := "  sudo knockwall check\n  sudo knockwall reload --confirm 2m\n"
	invite := "sudo knockwall invite " + n.name
	if n.folder != defaultConfig {
		next = fmt.Sprintf("  sudo knockwall check --config %s\n  sudo knockwall run --config %[1]s --confirm 2m\n", n.folder)
		invite += " --config " + n.folder
	}
	elsewhere := "elsewhere"
	if n.trusted.IsValid() { // its session would prove nothing
		elsewhere = "a client that is not trusted"
	}
	fmt.Fprintf(out, "\nNothing is in force yet. Next, in a session that stays open:\n\n%s\n"+
		"Then come in from %s, as shown below, and type there:\n\n  sudo knockwall confirm\n", next, elsewhere)
	i, err := inviteTo(loaded.Config.Door(n.name), &loaded.Config.Wall, "")
	if unfit, ok := errors.AsType[*unfitName](err); ok {
		fmt.Fprintf(out, "\n%s. For the line that a client needs, type: %s --host NAME\n", unfit, invite)
		return nil
	}
	if err != nil {
		return err
	}
	if i.Address == "" {
		fmt.Fprintf(c.ErrOrStderr(), "knockwall: %s: if they cannot, type: %s --host NAME\n", withoutAddress, invite)
	}
	fmt.Fprint(out, "\nOn a client:\n\n")
	switch {
	case isForSSH(i):
		fmt.Fprintf(out, "  knockwall join --ssh %s\n  ssh %s\n", i, i.Host)
	case i.Port.Protocol == packet.TCP:
		fmt.Fprintf(out, "  knockwall join %s\n  knockwall knock %s    # then use %s, or as a proxy command:\n  knockwall connect %[2]s %[4]d\n", i, i.Host, i.Port, i.Port.Number)
	default:
		fmt.Fprintf(out, "  knockwall join %s\n  knockwall knock %s    # then use %s\n", i, i.Host, i.Port)
	}
	fmt.Fprintf(out, "\n`%s` prints the line again.\n--host NAME puts another name into it.\n", invite)
	if i.HasSecret() {
		fmt.Fprint(out, "Keep the line secret: it has the knocks.\n")
	}
	return nil
}
