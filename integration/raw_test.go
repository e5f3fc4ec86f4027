package integration

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/forge"
)

// send sends raw segments from the client, back to back.
func (l *lab) send(segments ...forge.Segment) {
	l.t.Helper()
	if len(segments) == 0 {
		return
	}
	socket := l.rawSocket(segments[0].To)
	defer unix.Close(socket)
	for _, s := range segments {
		must(l.t, s.Send(socket))
	}
}

// rawSocket opens a socket for packets that bring their IP header.
func (l *lab) rawSocket(to netip.Addr) (fd int) {
	l.t.Helper()
	must(l.t, l.client.Do(func() (err error) {
		fd, err = forge.RawSocket(to)
		return err
	}))
	return fd
}
