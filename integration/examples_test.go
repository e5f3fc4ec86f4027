package integration

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// Every example is read without a warning, is installed, keeps strangers out of
// each of its doors, and lets in who knocks.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../examples/*.hcl")
	must(t, err)
	if len(files) == 0 {
		t.Fatal("there are no examples")
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".hcl"), func(t *testing.T) {
			t.Parallel()
			loaded := ruleset.Load(file)
			if loaded.Config == nil || len(loaded.Diagnostics) > 0 {
				t.Fatal(loaded.Diagnostics)
			}
			for _, to := range []netip.Addr{server4, server6} {
				l := newLab(t)
				d := l.runFile(file)
				for _, door := range loaded.Config.Doors {
					for _, ports := range door.Ports {
						l.tryExample(t, d, to, door, packet.Port{Number: ports.First, Protocol: ports.Protocol})
					}
				}
			}
		})
	}
}

func (l *lab) tryExample(t *testing.T, d *daemon, to netip.Addr, door ruleset.Door, port packet.Port) {
	t.Helper()
	from := nth(1, to)
	admitted := func(want bool) bool { return l.admitted(want, from, to, int(port.Number)) }
	if port.Protocol == packet.UDP {
		l.serveUDP(int(port.Number), to)
		admitted = func(want bool) bool { return l.answered(want, from, to, port.Number) }
	} else {
		l.serve(int(port.Number))
	}
	if admitted(false) {
		t.Errorf("%s: a stranger gets in to %s", to, port)
	}
	l.knock(from, to, door.Sequences[0]...)
	d.waitFor("opened", "door="+door.Name)
	if !admitted(true) {
		t.Errorf("%s: who has knocked is kept out of %s", to, port)
	}
}

// answered reports whether a datagram is answered, where want says so.
func (l *lab) answered(want bool, from, to netip.Addr, port uint16) bool {
	l.t.Helper()
	err := l.client.Do(func() error {
		fd, err := boundSocket(from, to, unix.SOCK_DGRAM)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if !want {
			timeout := unix.NsecToTimeval(int64(short))
			if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
				return err
			}
		}
		if err := unix.Sendto(fd, []byte("ping"), 0, sockaddr(to, port)); err != nil {
			return err
		}
		b := make([]byte, 4)
		if n, err := receive(fd, b); err != nil || string(b[:n]) != "ping" {
			return fmt.Errorf("no answer: %w", err)
		}
		return nil
	})
	return err == nil
}
