// Package sockettest makes netlink sockets for tests. They need no privilege.
package sockettest

import (
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Pair returns two sockets. What is written to the first without an address, as to the
// kernel, arrives at the second.
func Pair(t testing.TB) (from, to *netlink.Conn) {
	t.Helper()
	var all [2]*netlink.Conn
	for i := range all {
		conn, err := netlink.Dial(unix.NETLINK_USERSOCK, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		all[i] = conn
	}
	raw, err := all[0].SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	connect := func(fd uintptr) {
		err = unix.Connect(int(fd), &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: all[1].PID()})
	}
	if controlErr := raw.Control(connect); controlErr != nil || err != nil {
		t.Fatal(controlErr, err)
	}
	return all[0], all[1]
}
