package sessions

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Usage returns how many connections conntrack has and its limit. Both are 0 if the
// kernel does not report them (before Linux 4.18).
func Usage() (known, room int, err error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, 0, fmt.Errorf("reading how many connections conntrack has: %w", err)
	}
	defer conn.Close()
	const request, entries, most = unix.NFNL_SUBSYS_CTNETLINK<<8 | 5, 1, 2 // IPCTNL_MSG_CT_GET_STATS, CTA_STATS_GLOBAL_*
	// The first request waits until the kernel has loaded a module.
	if err = conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err == nil {
		_, err = conn.Send(netlink.Message{
			Header: netlink.Header{Type: request, Flags: netlink.Request}, Data: make([]byte, 4)}) // the data is struct nfgenmsg
	}
	if err != nil {
		return 0, 0, fmt.Errorf("reading how many connections conntrack has: %w", err)
	}
	for m, err := range conn.ReceiveIter() {
		if err != nil {
			return 0, 0, fmt.Errorf("reading how many connections conntrack has: %w", err)
		}
		// The kernel flags its answer as one of several, but sends no other. Do not wait
		// for it.
		if err := conn.SetReadDeadline(time.Unix(1, 0)); err != nil {
			return 0, 0, err
		}
		if len(m.Data) < 4 {
			break
		}
		attributes, err := netlink.UnmarshalAttributes(m.Data[4:])
		for _, a := range attributes {
			if len(a.Data) != 4 {
				continue
			}
			switch n := int(binary.BigEndian.Uint32(a.Data)); a.Type {
			case entries:
				known = n
			case most:
				room = n
			}
		}
		return known, room, err
	}
	return 0, 0, errors.New("conntrack does not report how many connections it has")
}

// NearlyFull reports whether conntrack is 90 % full, so that the kernel may soon drop new
// connections.
func NearlyFull(known, room int) bool { return room > 0 && known >= room/10*9 }
