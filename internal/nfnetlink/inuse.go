package nfnetlink

import (
	"encoding/binary"
	"errors"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// InUse reports whether another socket has bound a group or queue of a netfilter
// subsystem (NFNL_SUBSYS_*). Kind is the subsystem's type of configuration messages.
// InUse changes nothing: it sends a configuration message without attributes. The kernel
// refuses that with EPERM if the group or queue is another socket's, and with ENODEV if
// there is none.
func InUse(subsystem, kind uint8, number uint16) (bool, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	_, err = conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(uint16(subsystem)<<8 | uint16(kind)),
			Flags: netlink.Request | netlink.Acknowledge,
		},
		Data: binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, number),
	})
	switch {
	case errors.Is(err, unix.EPERM):
		return true, nil
	case errors.Is(err, unix.ENODEV):
		return false, nil
	case err == nil:
		err = errors.New("the kernel accepts an empty configuration message")
	}
	return false, err
}
