package main

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// session is the ssh connection that a user is at.
type session struct{ client, server netip.AddrPort }

// sshSession returns the ssh connection that this process was started over, if
// it was. sshd tells its children in the environment, which sudo withholds from
// its own; so the ancestors' are looked at, too.
func sshSession() (session, bool) {
	for id := os.Getpid(); id > 1; id = host.ParentOf(id) {
		environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", id))
		if err != nil {
			continue
		}
		for variable := range bytes.SplitSeq(environment, []byte{0}) {
			if value, ok := bytes.CutPrefix(variable, []byte("SSH_CONNECTION=")); ok {
				return parseSession(string(value))
			}
		}
	}
	return session{}, false
}

// parseSession reads what sshd writes: the client's address and port, and the
// server's.
func parseSession(text string) (s session, ok bool) {
	fields := strings.Fields(text)
	if len(fields) != 4 {
		return s, false
	}
	for i, to := range []*netip.AddrPort{&s.client, &s.server} {
		addr, err := netip.ParseAddr(fields[2*i])
		port, portErr := strconv.ParseUint(fields[2*i+1], 10, 16)
		if err != nil || portErr != nil {
			return s, false
		}
		*to = netip.AddrPortFrom(addr.Unmap().WithZone(""), uint16(port))
	}
	return s, true
}

// warnOfLockout says which doors are about to close the port that the user is
// connected to, if that is so and the user need not be there without knocking.
func warnOfLockout(w io.Writer, c *ruleset.Config, s session, onTrial bool) {
	contains := func(prefixes []netip.Prefix, a netip.Addr) bool {
		return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	from := s.client.Addr()
	if from.IsLoopback() { // which is never judged
		return
	}
	var doors []string
	for _, d := range c.Doors {
		if d.Guards(packet.Port{Number: s.server.Port(), Protocol: packet.TCP}) &&
			(len(d.To) == 0 || contains(d.To, s.server.Addr())) {
			if contains(c.Wall.Trusted, from) || contains(d.Trusted, from) {
				return
			}
			doors = append(doors, d.Name)
		}
	}
	if len(doors) == 0 {
		return
	}
	hides := "the door " + doors[0] + "\nhides"
	if len(doors) > 1 {
		hides = "the doors\n" + strings.Join(doors, ", ") + " hide"
	}
	fmt.Fprintf(w, "You are here by ssh, from %s to port %d, which is about to close: %s "+
		"it. This session goes on, but the next one has to knock. Stay connected\n"+
		"until you have tried that from another terminal.\n", from, s.server.Port(), hides)
	if onTrial {
		fmt.Fprintln(w, "The wall is on trial: it goes again unless `knockwall confirm` comes in time.")
		return
	}
	fmt.Fprintf(w, "Safer: start with --confirm 2m, which takes the wall down again unless you\n"+
		"confirm it, or let %s in without knocking: trusted = [\"%s\"]\n", from, from)
}
