// Package sessions deals with connections that are established: it makes those
// known to conntrack that were there before the wall, and ends those that are to
// go with their window.
//
// The wall lets packets of known connections pass. But the kernel follows
// connections only from when a rule first asks for it, and then takes up an old
// one only with a packet that this host sends. Without help, whoever puts up a
// wall over ssh would find that very session dead. And a connection that
// conntrack is merely made to forget is known again with the next packet that
// this host sends; so one that is to end is labelled, which takes the wall's leave
// to pass from it, until it is gone or pardoned. A label, and no mark: those are the
// administrator's, and whoever sets them on every packet would set it free again.
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

// The states of enum in net/tcp_states.h in which a connection's data or end is
// still to come.
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

// Of linux/netfilter/nf_conntrack_tcp.h: the state of an established connection, the
// first state of one that is over, and flags for one whose window was never seen, so
// that no segment is found to lie outside of it. And how long conntrack keeps an idle
// one, in seconds, by default.
const (
	conntrackEstablished = 3
	conntrackTimeWait    = 7
	flagSACK             = 0x02
	flagLiberal          = 0x08
	idleTimeout          = 432000
)

// Session is a connection that somebody has made to a port.
type Session struct {
	Port   packet.Port
	Local  netip.Addr // that it was made to
	Here   bool       // which is one of this host's
	Remote netip.Addr // who has made it
}

// Adopt makes those TCP connections of this host known to conntrack that are
// wanted. It returns how many of them were not known before. With renew, what
// conntrack knows of the others is made anew, too: where it was not asked for a
// while, that may be what is left of an earlier connection of the same ports.
func Adopt(wanted func(Session) bool, renew bool) (adopted int, err error) {
	conn, err := conntrack.Dial(nil)
	if err != nil {
		return 0, fmt.Errorf("connecting to conntrack: %w", err)
	}
	defer conn.Close()
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		connections, err := list(family)
		if err != nil {
			return adopted, err
		}
		for _, c := range connections {
			if !wanted(c.session()) {
				continue
			}
			switch err := conn.Create(c.flow()); {
			case err == nil:
				adopted++
			case errors.Is(err, unix.EEXIST) && renew && c.established:
				_ = conn.Update(c.flow())
			case !errors.Is(err, unix.EEXIST):
				return adopted, fmt.Errorf("making the connection from %s known to conntrack, "+
					"for which the kernel needs CONFIG_NF_CT_NETLINK: %w", c.remote, err)
			}
		}
	}
	return adopted, nil
}

// End ends those established connections that are wanted, connections of this host
// and those that it forwards. All are labelled for the wall to stop; TCP connections of
// this host are closed, too, so that both ends learn of it, where the kernel can
// (CONFIG_INET_DIAG_DESTROY). It returns how many were labelled, of which nothing passes
// any more.
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
		if !lives(f) || !t.means(f, wanted) {
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
				_ = destroy(c) // what is labelled ends by itself in the end
			}
		}
	}
	return ended, nil
}

// Ended returns the sessions that were ended, by whatever daemon, and are not gone
// yet. It is not known of them who has made them: each is returned twice, as if it
// had been the one end, and the other.
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

// Pardon lets those sessions go on that were ended and are wanted, as far as both
// ends still have them.
func Pardon(wanted func(Session) bool) error {
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
		if !t.means(f, wanted) {
			continue
		}
		free := tuples(f)
		if forgotten(f) {
			// To be translated again, it must be new once more.
			err = t.conn.Delete(free)
		} else {
			free.Labels, free.LabelsMask = labels(), labels(nft.EndedLabel)
			err = t.conn.Update(free)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) { // it has ended by itself
			return fmt.Errorf("letting the connection from %s go on: %w", f.TupleOrig.IP.SourceAddress, err)
		}
	}
	return nil
}

// Tracked reports whether conntrack keeps the connection that a packet belongs to:
// from when its first packet was delivered, and not if that was dropped on its way.
func Tracked(p packet.Packet) (bool, error) {
	conn, err := conntrack.Dial(nil)
	if err != nil {
		return false, fmt.Errorf("connecting to conntrack: %w", err)
	}
	defer conn.Close()
	// To change nothing of it, as the answer to a plain question says that more is to
	// come, for which the library would wait for ever.
	err = conn.Update(tuples(conntrack.NewFlow(uint8(p.Port.Protocol), 0, p.Source, p.Destination, p.SourcePort, p.Port.Number, 0, 0)))
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

// tracked is conntrack's table.
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

// flows returns those that were ended, or all others.
func (t *tracked) flows(ended bool) (flows []conntrack.Flow, err error) {
	all, err := t.conn.Dump(nil)
	if err != nil {
		return nil, fmt.Errorf("listing the connections that conntrack knows: %w", err)
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

// means reports whether a flow is wanted. One that this host's side spoke first in, as
// far as conntrack saw, is known the other way round.
func (t *tracked) means(f conntrack.Flow, wanted func(Session) bool) bool {
	return wanted(t.sessionOf(f.TupleOrig)) || wanted(t.sessionOf(f.TupleReply))
}

// end labels a flow, and reports whether there still is one.
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
		// Conntrack began to follow it when no rule had asked for labels, and left no
		// room for any. So it is made anew, by this or by the next packet of this host;
		// one that comes in is a stranger's meanwhile.
		if err := t.conn.Delete(tuples(f)); err != nil && !errors.Is(err, unix.ENOENT) {
			return false, err
		}
		if err := t.conn.Create(anew(f)); err != nil && !errors.Is(err, unix.EEXIST) {
			return false, err
		}
	}
	if errors.Is(err, unix.ENOENT) {
		return false, nil // it has ended by itself
	}
	return err == nil, err
}

// anew returns a flow that ends from the first moment on, in place of another.
func anew(f conntrack.Flow) conntrack.Flow {
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

// forgotten reports whether how a flow is translated was lost when it was made anew,
// as that cannot be told to the kernel.
func forgotten(f conntrack.Flow) bool {
	there, back := f.TupleOrig, f.TupleReply
	translated := there.IP.SourceAddress != back.IP.DestinationAddress || there.IP.DestinationAddress != back.IP.SourceAddress ||
		there.Proto.SourcePort != back.Proto.DestinationPort || there.Proto.DestinationPort != back.Proto.SourcePort
	return translated && !f.Status.SrcNAT() && !f.Status.DstNAT()
}

// tuples returns no more of a flow than names it.
func tuples(f conntrack.Flow) conntrack.Flow {
	return conntrack.Flow{TupleOrig: f.TupleOrig, TupleReply: f.TupleReply, Zone: f.Zone}
}

func labels(labels ...int) []byte {
	bits := nft.LabelBits(labels...)
	return bits[:]
}

// sessionOf reads one direction of a flow as if it were who made the connection
// that sends there.
func (t *tracked) sessionOf(way conntrack.Tuple) Session {
	local := way.IP.DestinationAddress.Unmap()
	return Session{
		Port:   packet.Port{Number: way.Proto.DestinationPort, Protocol: packet.Protocol(way.Proto.Protocol)},
		Local:  local,
		Here:   t.here[local],
		Remote: way.IP.SourceAddress.Unmap(),
	}
}

// lives reports whether a flow has anything to end: TCP connections are
// remembered for a while after that.
func lives(f conntrack.Flow) bool {
	return f.ProtoInfo.TCP == nil || f.ProtoInfo.TCP.State < conntrackTimeWait
}

// connection is one of this host's, as inet_diag has it.
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

// destroy closes a connection: SOCK_DESTROY of linux/sock_diag.h.
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

// unseen is a TCP connection in a state, of which no segment was seen.
func unseen(state uint8) *conntrack.ProtoInfoTCP {
	const flags = (flagSACK|flagLiberal)<<8 | flagSACK | flagLiberal // the flags, and which of them are meant
	return &conntrack.ProtoInfoTCP{State: state, OriginalFlags: flags, ReplyFlags: flags}
}

// list asks the kernel for the TCP connections of an address family: struct
// inet_diag_req_v2 and struct inet_diag_msg of linux/inet_diag.h.
func list(family uint8) ([]connection, error) {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return nil, fmt.Errorf("asking the kernel for its connections: %w", err)
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
		return nil, nil // there is no IPv6, as what asks for it is the same
	}
	if errors.Is(err, unix.ENOENT) {
		return nil, errors.New("this kernel cannot list its connections, so that those which are open now " +
			"would be cut: it needs CONFIG_INET_TCP_DIAG, built in or as a module that is installed")
	}
	if err != nil {
		return nil, fmt.Errorf("asking the kernel for its connections: %w", err)
	}
	var connections []connection
	for _, m := range messages {
		if len(m.Data) < 4+48 {
			continue
		}
		// An IPv4 connection of an IPv6 socket is listed under IPv6.
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
