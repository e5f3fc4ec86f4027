package nfnetlink

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// InUse reports whether another socket has bound a group or queue of a netfilter
// subsystem (NFNL_SUBSYS_*). Kind is the subsystem's type of configuration messages.
// InUse changes nothing: it sends a configuration message without attributes. The kernel
// refuses that with EPERM if the group or queue is another socket's, and with ENODEV if
// there is none. InUse needs CAP_NET_ADMIN in the network namespace. Without it nobody can
// know, and the error is EPERM.
func InUse(subsystem, kind uint8, number uint16) (bool, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	err = request(conn, uint16(subsystem)<<8|uint16(kind),
		binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, number))
	switch {
	case errors.Is(err, unix.EPERM):
		// The kernel answers the same without CAP_NET_ADMIN, but then to any request, even
		// to one that does nothing: nfnetlink_rcv of net/netfilter/nfnetlink.c.
		if err := request(conn, unix.NLMSG_NOOP, nil); err != nil {
			return false, fmt.Errorf("this needs CAP_NET_ADMIN: %w", err)
		}
		return true, nil
	case errors.Is(err, unix.ENODEV):
		return false, nil
	case err == nil:
		err = errors.New("the kernel accepts an empty configuration message")
	}
	return false, err
}

// request sends a message and returns the kernel's answer.
func request(conn *netlink.Conn, kind uint16, data []byte) error {
	_, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.Acknowledge},
		Data:   data,
	})
	return err
}
