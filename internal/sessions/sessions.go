// Package sessions adds and ends established connections. It adds connections that are
// older than the wall to conntrack, and ends those that must end with their window.
//
// The wall accepts packets of known connections. But the kernel tracks connections only
// after a rule first needs it, and then adds an old connection only when this host sends
// a packet. Without this package, an administrator who starts the wall over ssh would
// lose that session.
//
// Deleting a connection from conntrack does not end it: conntrack adds it again with the
// next packet that this host sends. So a connection that must end gets a label, and the
// wall drops its packets until the connection is gone or the label is cleared. It is a label and not
// a mark, because marks belong to the administrator: a rule that sets a mark on every
// packet would overwrite it.
package sessions

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
)

// The TCP states of net/tcp_states.h in which data or the end of a connection may still
// come.
const (
	established = 1
	synReceived = 3
	finWait1    = 4
	finWait2    = 5
	closeWait   = 8
	lastAck     = 9
	closing     = 11

	alive = 1<<established | 1<<synReceived | 1<<finWait1 | 1<<finWait2 | 1<<closeWait | 1<<lastAck | 1<<closing
)

// Constants of linux/netfilter/nf_conntrack_tcp.h: the state of an established
// connection, the first state of a closed one, and the flags that make conntrack accept
// every segment of a connection whose window it has not seen. idleTimeout is the kernel's
// default time-out of an idle connection, in seconds.
const (
	conntrackEstablished = 3
	conntrackTimeWait    = 7
	flagSACK             = 0x02
	flagLiberal          = 0x08
	idleTimeout          = 432000
)

// Session is a connection to a port.
type Session struct {
	Port   packet.Port
	Local  netip.Addr // the destination address
	Here   bool       // Local is an address of this host
	Remote netip.Addr // the client's address
}

// SeedConntrack adds the wanted TCP connections of this host to conntrack, and returns how many
// it added. With renew, it also replaces the entries of wanted connections that conntrack
// already has: if no rule needed conntrack for a while, such an entry may be left from an
// earlier connection with the same ports.
func SeedConntrack(wanted func(Session) bool, renew bool) (added int, err error) {
	conn, err := conntrack.Dial(nil)
	if err != nil {
		return 0, fmt.Errorf("connecting to conntrack: %w", err)
	}
	defer conn.Close()
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		connections, err := list(family)
		if err != nil {
			return added, err
		}
		for _, c := range connections {
			if !wanted(c.session()) {
				continue
			}
			switch err := conn.Create(c.flow()); {
			case err == nil:
				added++
			case errors.Is(err, unix.EEXIST) && renew && c.established:
				_ = conn.Update(c.flow())
			case !errors.Is(err, unix.EEXIST):
				return added, fmt.Errorf("adding the connection from %s to conntrack, "+
					"for which the kernel needs CONFIG_NF_CT_NETLINK: %w", c.remote, err)
			}
		}
	}
	return added, nil
}

// End ends the wanted established connections, both of this host and forwarded ones. It
// labels them, and the wall drops their packets from then on. It also closes TCP
// connections of this host, so that both ends notice, if the kernel can
// (CONFIG_INET_DIAG_DESTROY). It returns how many connections it labelled.
func End(wanted func(Session) bool) (ended int, err error) {
	t, err := open()
	if err != nil {
		return 0, err
	}
	defer t.conn.Close()
	flows, err := t.flows(false)
	if err != nil {
		return 0, err
	}
	for _, f := range flows {
		if !isOpen(f) || !t.matches(f, wanted) {
			continue
		}
		known, err := t.end(f)
		if err != nil {
			return ended, fmt.Errorf("labelling the connection from %s, for which the kernel needs "+
				"CONFIG_NF_CT_NETLINK and CONFIG_NF_CONNTRACK_LABELS: %w", f.TupleOrig.IP.SourceAddress, err)
		}
		if known {
			ended++
		}
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		connections, err := list(family)
		if err != nil {
			return ended, err
		}
		for _, c := range connections {
			if wanted(c.session()) {
				_ = destroy(c) // if it fails, the label still ends the connection
			}
		}
	}
	return ended, nil
}

// Ended returns the ended sessions that conntrack still has, whichever daemon ended them.
// It is not known which end made the connection, so each session is returned twice, once
// for each end.
func Ended() (ended []Session, err error) {
	t, err := open()
	if err != nil {
		return nil, err
	}
	defer t.conn.Close()
	flows, err := t.flows(true)
	for _, f := range flows {
		ended = append(ended, t.sessionOf(f.TupleOrig), t.sessionOf(f.TupleReply))
	}
	return ended, err
}

// ClearMarks lets the wanted sessions that were ended continue, if both ends still have
// them.
func ClearMarks(wanted func(Session) bool) error {
	t, err := open()
	if err != nil {
		return err
	}
	defer t.conn.Close()
	flows, err := t.flows(true)
	if err != nil {
		return err
	}
	for _, f := range flows {
		if !t.matches(f, wanted) {
			continue
		}
		free := tuples(f)
		if hasLostNAT(f) {
			// NAT translates it again only if it is new to conntrack.
			err = t.conn.Delete(free)
		} else {
			free.Labels, free.LabelsMask = labels(), labels(nft.EndedLabel)
			err = t.conn.Update(free)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) { // ENOENT: the connection has ended
			return fmt.Errorf("letting the ended connection from %s continue: %w", f.TupleOrig.IP.SourceAddress, err)
		}
	}
	return nil
}

// Tracked reports whether conntrack has confirmed the connection of a packet. It has if
// the first packet was delivered, and not if that packet was dropped.
func Tracked(p packet.Packet) (bool, error) {
	conn, err := conntrack.Dial(nil)
	if err != nil {
		return false, fmt.Errorf("connecting to conntrack: %w", err)
	}
	defer conn.Close()
	// An update that changes nothing, because the library would wait forever after a
	// query: the kernel flags its answer as one of several.
	err = conn.Update(tuples(conntrack.NewFlow(uint8(p.Port.Protocol), 0, p.Source, p.Destination, p.SourcePort, p.Port.Number, 0, 0)))
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

// tracked is the connection table of conntrack.
type tracked struct {
	conn *conntrack.Conn
	here map[netip.Addr]bool // this host's addresses
}

func open() (t *tracked, err error) {
	t = &tracked{}
	if t.here, err = host.Addresses(); err != nil {
		return nil, err
	}
	if t.conn, err = conntrack.Dial(nil); err != nil {
		return nil, fmt.Errorf("connecting to conntrack: %w", err)
	}
	return t, nil
}

// flows returns the flows that were ended, or all others.
func (t *tracked) flows(ended bool) (flows []conntrack.Flow, err error) {
	all, err := t.conn.Dump(nil)
	if err != nil {
		return nil, fmt.Errorf("listing the connections in conntrack: %w", err)
	}
	label := labels(nft.EndedLabel)
	for _, f := range all {
		is := len(f.Labels) == len(label)
		for i := 0; is && i < len(label); i++ {
			is = f.Labels[i]&label[i] == label[i]
		}
		if is == ended {
			flows = append(flows, f)
		}
	}
	return flows, nil
}

// matches reports whether a flow is wanted. It checks both directions: if conntrack first
// saw a packet of this host's side, the flow is reversed.
func (t *tracked) matches(f conntrack.Flow, wanted func(Session) bool) bool {
	return wanted(t.sessionOf(f.TupleOrig)) || wanted(t.sessionOf(f.TupleReply))
}

// end labels a flow, and reports whether the flow still exists.
func (t *tracked) end(f conntrack.Flow) (known bool, err error) {
	label := tuples(f)
	label.Labels = labels(nft.EndedLabel)
	label.LabelsMask = label.Labels
	const tries = 3
	for range tries {
		err = t.conn.Update(label)
		if !errors.Is(err, unix.ENOSPC) {
			break
		}
		// The entry has no room for labels, because no rule needed labels when conntrack
		// created it. This, or the next packet of this host, creates it again. Until then
		// the wall treats an incoming packet as a stranger's.
		if err := t.conn.Delete(tuples(f)); err != nil && !errors.Is(err, unix.ENOENT) {
			return false, err
		}
		if err := t.conn.Create(labelled(f)); err != nil && !errors.Is(err, unix.EEXIST) {
			return false, err
		}
	}
	if errors.Is(err, unix.ENOENT) {
		return false, nil // it has ended
	}
	return err == nil, err
}

// labelled returns a copy of a flow that is labelled as ended from the beginning.
func labelled(f conntrack.Flow) conntrack.Flow {
	next := tuples(f)
	next.Timeout = max(f.Timeout, 1)
	next.Status = f.Status&(conntrack.StatusSeenReply|conntrack.StatusAssured) | conntrack.StatusConfirmed
	next.Mark = f.Mark
	next.Labels = labels(nft.EndedLabel)
	if f.ProtoInfo.TCP != nil {
		next.ProtoInfo.TCP = unseen(f.ProtoInfo.TCP.State)
	}
	return next
}

// hasLostNAT reports whether a flow has lost its NAT because it was created again. The
// kernel interface cannot restore NAT.
func hasLostNAT(f conntrack.Flow) bool {
	there, back := f.TupleOrig, f.TupleReply
	translated := there.IP.SourceAddress != back.IP.DestinationAddress || there.IP.DestinationAddress != back.IP.SourceAddress ||
		there.Proto.SourcePort != back.Proto.DestinationPort || there.Proto.DestinationPort != back.Proto.SourcePort
	return translated && !f.Status.SrcNAT() && !f.Status.DstNAT()
}

// tuples returns the part of a flow that identifies it.
func tuples(f conntrack.Flow) conntrack.Flow {
	return conntrack.Flow{TupleOrig: f.TupleOrig, TupleReply: f.TupleReply, Zone: f.Zone}
}

func labels(labels ...int) []byte {
	bits := nft.LabelBits(labels...)
	return bits[:]
}

// sessionOf returns the session of one direction of a flow, as if the sender of that
// direction had made the connection.
func (t *tracked) sessionOf(way conntrack.Tuple) Session {
	local := way.IP.DestinationAddress.Unmap()
	return Session{
		Port:   packet.Port{Number: way.Proto.DestinationPort, Protocol: packet.Protocol(way.Proto.Protocol)},
		Local:  local,
		Here:   t.here[local],
		Remote: way.IP.SourceAddress.Unmap(),
	}
}

// isOpen reports whether a flow is still open. Conntrack remembers closed TCP connections
// for a while.
func isOpen(f conntrack.Flow) bool {
	return f.ProtoInfo.TCP == nil || f.ProtoInfo.TCP.State < conntrackTimeWait
}

// connection is a TCP connection of this host as inet_diag describes it.
type connection struct {
	local, remote netip.AddrPort
	established   bool
	family        uint8
	id            [48]byte // struct inet_diag_sockid
}

func (c connection) session() Session {
	return Session{
		Port:  packet.Port{Number: c.local.Port(), Protocol: packet.TCP},
		Local: c.local.Addr(), Here: true, Remote: c.remote.Addr(),
	}
}

// destroy closes a connection (SOCK_DESTROY of linux/sock_diag.h).
func destroy(c connection) error {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	request := make([]byte, 8+len(c.id))
	request[0], request[1] = c.family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(request[4:], alive)
	copy(request[8:], c.id[:])
	_, err = conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.SOCK_DESTROY, Flags: netlink.Request | netlink.Acknowledge},
		Data:   request,
	})
	return err
}

func (c connection) flow() conntrack.Flow {
	f := conntrack.NewFlow(unix.IPPROTO_TCP,
		conntrack.StatusSeenReply|conntrack.StatusAssured|conntrack.StatusConfirmed,
		c.remote.Addr(), c.local.Addr(), c.remote.Port(), c.local.Port(), idleTimeout, 0)
	f.ProtoInfo.TCP = unseen(conntrackEstablished)
	return f
}

// unseen returns conntrack's state for a TCP connection of which it saw no segment.
func unseen(state uint8) *conntrack.ProtoInfoTCP {
	const flags = (flagSACK|flagLiberal)<<8 | flagSACK | flagLiberal // values and mask
	return &conntrack.ProtoInfoTCP{State: state, OriginalFlags: flags, ReplyFlags: flags}
}

// list returns the TCP connections of an address family (struct inet_diag_req_v2 and
// struct inet_diag_msg of linux/inet_diag.h).
func list(family uint8) ([]connection, error) {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return nil, fmt.Errorf("listing the kernel's connections: %w", err)
	}
	defer conn.Close()
	request := make([]byte, 56)
	request[0] = family
	request[1] = unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(request[4:], alive)
	messages, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request | netlink.Dump},
		Data:   request,
	})
	if errors.Is(err, unix.ENOENT) && family == unix.AF_INET6 {
		return nil, nil // no IPv6; the request for IPv4 fails only without inet_diag
	}
	if errors.Is(err, unix.ENOENT) {
		return nil, errors.New("this kernel cannot list its connections, so the wall would cut those that are open " +
			"now: it needs CONFIG_INET_TCP_DIAG, built in or as an installed module")
	}
	if err != nil {
		return nil, fmt.Errorf("listing the kernel's connections: %w", err)
	}
	var connections []connection
	for _, m := range messages {
		if len(m.Data) < 4+48 {
			continue
		}
		// The kernel lists an IPv4 connection of an IPv6 socket under IPv6.
		address := func(b []byte) netip.Addr {
			if m.Data[0] == unix.AF_INET {
				return netip.AddrFrom4([4]byte(b[:4]))
			}
			return netip.AddrFrom16([16]byte(b[:16])).Unmap()
		}
		connections = append(connections, connection{
			established: m.Data[1] == established,
			family:      family,
			id:          [48]byte(m.Data[4:]),
			local:       netip.AddrPortFrom(address(m.Data[8:]), binary.BigEndian.Uint16(m.Data[4:])),
			remote:      netip.AddrPortFrom(address(m.Data[24:]), binary.BigEndian.Uint16(m.Data[6:])),
		})
	}
	return connections, nil
}
