//go:build linux

package daemon

import (
	"fmt"
	"io"

	"github.com/knockwall/knockwall/internal/control"
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
		confirm := ""
		if d.Confirm != 0 {
			confirm = control.Command(d.Control, "confirm")
		}
		writeLockout(d.stderr, config, s, confirm)
	}
}

// writeLockout warns if doors are about to close the port that the user's ssh session is
// connected to, and names these doors. It does not warn if the user's address is trusted.
// confirm is what to type to confirm a trial, "" if there is none.
func writeLockout(w io.Writer, c *ruleset.Config, s host.SSH, confirm string) {
	doors := doctor.ShutTo(c, s)
	if len(doors) == 0 {
		return
	}
	say := func(text string) { terminal.WriteParagraph(w, text) }
	say(doctor.Lockout(s, doors, "is about to close"))
	if confirm != "" {
		say(fmt.Sprintf("The wall is on trial: it goes down again unless you type `%s` in time.", confirm))
		return
	}
	say(fmt.Sprintf("Safer: start with --confirm 2m, which takes the wall down again unless you confirm it, "+
		"or let %s in without knocking: trusted = [\"%[1]s\"]", s.Client.Addr()))
}
