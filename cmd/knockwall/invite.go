//go:build linux && !client

package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"rsc.io/qr"

	"github.com/knockwall/knockwall/internal/client"
	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/invitation"
	"github.com/knockwall/knockwall/internal/method/fixed"
	"github.com/knockwall/knockwall/internal/method/keys"
	"github.com/knockwall/knockwall/internal/method/passwords"
	"github.com/knockwall/knockwall/internal/method/rolling"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/secret"
	"github.com/knockwall/knockwall/internal/terminal"
	"github.com/knockwall/knockwall/ruleset"
)

func inviteCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "invite DOOR",
		Short: "Print one line that tells a client how to knock",
		Long: `invite prints an invitation to a door: one line for "knockwall join" on a
client.

If the door takes knocks signed with an ssh key (keys), the line has no secret:
whoever has it still needs the key of a person in the door's people file. At
other doors the line has the knocks or the secret. Then invite says so, and you
should send the line only where you would send a password.

If the door is for ssh and you use sudo, the line has your user name, by which
"join --ssh" lets the client log in. For somebody else, give --user NAME.`,
		Example: `  sudo knockwall invite ssh
  sudo knockwall invite ssh --host server.example.org
  sudo knockwall invite ssh --user bob
  sudo knockwall invite ssh --qr`,
		Args: takes("the name of one DOOR", 1, 1),
	}
	config := configFlag(c)
	c.ValidArgsFunction = completeRuleDoors(config)
	name := c.Flags().String("host", "", "the `NAME` or address of this host for clients; default: its host name, with an address")
	login := c.Flags().String("user", "", "the `NAME` by which the client logs in; default: who uses sudo, at a door for ssh")
	asQR := c.Flags().Bool("qr", false, "print a QR code, too")
	c.RunE = func(c *cobra.Command, arguments []string) error {
		loaded := ruleset.Review(*config)
		if err := terminal.WriteDiagnostics(c.ErrOrStderr(), loaded.Errors()); err != nil {
			return err
		}
		if loaded.Config == nil {
			return &usageError{errSaid}
		}
		door := loaded.Config.Door(arguments[0])
		if door == nil {
			return usage("the rule files have no door %q", arguments[0])
		}
		i, err := inviteTo(door, &loaded.Config.Wall, *name)
		if unfit, ok := errors.AsType[*unfitName](err); ok {
			return usage("%w: give another by --host", unfit)
		}
		if err != nil {
			return err
		}
		if c.Flags().Changed("user") {
			if *login != "" && !invitation.IsUserName(*login) {
				return usage("%q cannot be in an invitation as the name of a user", *login)
			}
			i.User = *login
		}
		if *name == "" && i.Address == "" {
			fmt.Fprintf(c.ErrOrStderr(), "knockwall: %s: if they cannot, give --host NAME\n", withoutAddress)
		}
		if i.HasSecret() {
			fmt.Fprintf(c.ErrOrStderr(), "knockwall: this line opens the door %s for everybody who has it: keep it secret\n", door.Name)
		}
		line := i.String()
		fmt.Fprintln(c.OutOrStdout(), line)
		if !*asQR {
			return nil
		}
		code, err := qr.Encode(line, qr.L)
		if err != nil {
			return fmt.Errorf("making a QR code: %w", err)
		}
		_, isTerminal := terminal.Width(c.OutOrStdout())
		_, err = fmt.Fprint(c.OutOrStdout(), drawQR(code, isTerminal))
		return err
	}
	return c
}

// withoutAddress warns of an invitation that has only the host's name.
const withoutAddress = "the line has no address, so clients look this host's name up"

// unfitName is the error for a name of this host that no invitation can have.
type unfitName struct{ name string }

func (e *unfitName) Error() string {
	return fmt.Sprintf("%q cannot be in an invitation as the name of this host", e.name)
}

// inviteTo returns an invitation to a door of this host, as a client can read it. If name is
// empty, it has the host name and an address.
func inviteTo(d *ruleset.Door, w *ruleset.Wall, name string) (*invitation.Invitation, error) {
	i, err := wayInto(d, w)
	if err != nil {
		return nil, err
	}
	if i.Host = name; name == "" {
		i.Host, i.Address = ownName()
	}
	if _, err := invitation.Parse(i.String()); err != nil {
		return nil, &unfitName{i.Host}
	}
	if caller, ok := sudoUser(); ok && caller.Uid != "0" && isForSSH(i) && invitation.IsUserName(caller.Username) {
		i.User = caller.Username
	}
	return i, nil
}

// isForSSH reports whether an invitation is to a port of ssh: its number or the door's name says
// so, or the caller's session came to it.
func isForSSH(i *invitation.Invitation) bool {
	session, _ := host.Session()
	return i.Port.Protocol == packet.TCP &&
		(i.Port.Number == sshPort || i.Port.Number == session.Server.Port() || strings.HasPrefix(i.Door, "ssh"))
}

// wayInto returns an invitation to a door without a host. It is by signed knocks if the door
// takes them.
func wayInto(d *ruleset.Door, w *ruleset.Wall) (*invitation.Invitation, error) {
	i := &invitation.Invitation{Door: d.Name}
	for _, ports := range d.Ports {
		if i.Port.Number == 0 || ports.Protocol == packet.TCP && i.Port.Protocol != packet.TCP {
			i.Port = packet.Port{Number: ports.First, Protocol: ports.Protocol}
		}
	}
	if i.Port.Number == 0 {
		return nil, fmt.Errorf("the door %s guards no port, so there is nothing to be invited to", d.Name)
	}
	for _, m := range d.Methods {
		if k, ok := m.(*keys.Keys); ok {
			if w.Identity == nil {
				return nil, fmt.Errorf("this host has no identity that this user can read: run sudo knockwall identity")
			}
			i.Keyed = &invitation.Keyed{Identity: w.Identity.Public(), Port: k.Port.Number}
			return i, nil
		}
	}
	for _, m := range d.Methods {
		switch m := m.(type) {
		case *fixed.Sequence:
			i.Knocks = m.Sequences[0]
			return i, nil
		case *rolling.Rolling:
			text, err := invitedSecret(d, m.Secret)
			i.Rolling = &invitation.Rolling{Secret: text, Length: m.Length, Ports: m.Range, Step: m.Step}
			return i, err
		case *passwords.OTP:
			text, err := invitedSecret(d, m.Open)
			i.Password = &invitation.Password{Secret: text, Port: m.Port.Number}
			return i, err
		}
	}
	return nil, fmt.Errorf("the door %s opens by a list or by fwknop only: give the client its own file", d.Name)
}

func invitedSecret(d *ruleset.Door, s secret.Secret) (string, error) {
	switch text := string(s.Key()); {
	case text == "":
		return "", fmt.Errorf("the secret of the door %s cannot be read here: give the client the file", d.Name)
	case !invitation.IsSecretText(text):
		return "", fmt.Errorf("the secret of the door %s has characters that an invitation cannot have: give the client the file", d.Name)
	default:
		return text, nil
	}
}

// ownName returns the name of this host, and an address where clients can reach it, if it
// has one: the one that the caller's ssh session came to, or the first public one.
func ownName() (name, address string) {
	name, _ = os.Hostname()
	if session, ok := host.Session(); ok && !session.Server.Addr().IsLoopback() {
		return name, session.Server.Addr().String()
	}
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && client.IsPublic(prefix.Addr()) {
			return name, prefix.Addr().String()
		}
	}
	return name, ""
}

// drawQR draws a QR code with two modules in each character, one above the other. Light
// modules are drawn in the colour of the text. On a terminal they are white on black.
func drawQR(code *qr.Code, terminal bool) string {
	const margin = 4 // modules: ISO/IEC 18004, quiet zone
	before, after := "", "\n"
	if terminal {
		before, after = "\x1b[97;40m", "\x1b[0m\n"
	}
	var b strings.Builder
	for y := -margin; y < code.Size+margin; y += 2 {
		b.WriteString(before)
		for x := -margin; x < code.Size+margin; x++ {
			above, below := code.Black(x, y), code.Black(x, y+1)
			switch {
			case above && below:
				b.WriteByte(' ')
			case above:
				b.WriteString("▄")
			case below:
				b.WriteString("▀")
			default:
				b.WriteString("█")
			}
		}
		b.WriteString(after)
	}
	return b.String()
}
