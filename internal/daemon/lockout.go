//go:build linux

package daemon

import (
	"fmt"
	"io"
	"strings"

	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/terminal"
	"github.com/knockwall/knockwall/ruleset"
)

// warnOfLockout warns a user at a terminal, who may be connected by ssh.
func (d *daemon) warnOfLockout(config *ruleset.Config) {
	if _, is := terminal.Width(d.stderr); !is {
		return
	}
	if s, ok := host.Session(); ok {
		writeLockout(d.stderr, config, s, d.Confirm != 0)
	}
}

// writeLockout warns if doors are about to close the port that the user's ssh session is
// connected to, and names these doors. It does not warn if the user's address is trusted.
func writeLockout(w io.Writer, c *ruleset.Config, s host.SSH, onTrial bool) {
	doors := doctor.ShutTo(c, s)
	if len(doors) == 0 {
		return
	}
	from := s.Client.Addr()
	hides := "the door " + doors[0] + "\nhides"
	if len(doors) > 1 {
		hides = "the doors\n" + strings.Join(doors, ", ") + " hide"
	}
	fmt.Fprintf(w, "You are here by ssh, from %s to port %d, which is about to close: %s "+
		"it. This session goes on, but the next one has to knock. Stay connected\n"+
		"until you have tried that from another terminal.\n", from, s.Server.Port(), hides)
	if onTrial {
		fmt.Fprintln(w, "The wall is on trial: it goes down again unless you type `knockwall confirm` in time.")
		return
	}
	fmt.Fprintf(w, "Safer: start with --confirm 2m, which takes the wall down again unless you\n"+
		"confirm it, or let %s in without knocking: trusted = [\"%s\"]\n", from, from)
}
