package sessions

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Usage returns how many connections conntrack knows on this host, and for how many it has
// room: 0 where the kernel does not tell, before 4.18.
func Usage() (known, room int, err error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, 0, fmt.Errorf("asking how many connections conntrack knows: %w", err)
	}
	defer conn.Close()
	const request, entries, most = unix.NFNL_SUBSYS_CTNETLINK<<8 | 5, 1, 2 // IPCTNL_MSG_CT_GET_STATS, CTA_STATS_GLOBAL_*
	// The first who asks waits for the kernel to load a module.
	if err = conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err == nil {
		_, err = conn.Send(netlink.Message{
			Header: netlink.Header{Type: request, Flags: netlink.Request}, Data: make([]byte, 4)}) // struct nfgenmsg
	}
	if err != nil {
		return 0, 0, fmt.Errorf("asking how many connections conntrack knows: %w", err)
	}
	for m, err := range conn.ReceiveIter() {
		if err != nil {
			return 0, 0, fmt.Errorf("asking how many connections conntrack knows: %w", err)
		}
		// The answer says that more is to come, which never does, and would be waited for.
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
	return 0, 0, errors.New("conntrack does not tell how many connections it knows")
}

// NearlyFull reports whether conntrack has so little room left that what is new may be
// dropped soon.
func NearlyFull(known, room int) bool { return room > 0 && known >= room/10*9 }
