//go:build linux

package nft

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/packet"
)

// This file has the chains at the input hook. NAT rules, or a route of another table, can
// deliver a packet to a guarded port although the prerouting hook did not see it go
// there. At the input hook the destination is certain. Sources with an open window are
// admitted there. All others are refused without asking the daemon.

// delivered returns the chains for packets that are delivered to this host.
func (t *contents) delivered(c *effective.Config) []chain {
	rules := []rule{
		{fromLoopback, accept},
		{ofKnownConnection, withoutFlags(opening), accept},
		{ofKnownConnection, notTCP, accept},
		{judged, accept},
	}
	var guarded []packet.PortRange
	for d := range doorsOf(c) {
		guarded = append(guarded, d.Ports...)
	}
	rules = append(rules, toAny(guarded, goTo(unjudgedChain))...)
	var parts []part
	var chains []chain
	for d := range doorsOf(c) {
		if len(d.Ports) == 0 {
			continue
		}
		admits := trust(d.Trusted)
		for _, f := range families {
			if d.MaxConnections > 0 {
				break // nothing would count the connections here
			}
			admits = append(admits, rule{fromSet(openSet(f), d.window(f)), count(admittedCounter(d.Name)), accept})
		}
		if !d.isHere() && len(admits) > 0 {
			chains = append(chains, chain{unjudgedOf(d.Name), "Delivered packets to ports of the door " + d.Name + ": does the source have an open window?", admits})
			admits = []rule{{jump(unjudgedOf(d.Name))}}
		}
		if len(admits) > 0 {
			parts = append(parts, d.delivered(unjudgedOf(d.Name), admits)...)
		}
	}
	for d := range doorsOf(c) {
		parts = append(parts, d.delivered(refuseChain(d.Name), d.answer())...)
	}
	unjudged, byPorts := byPort(unjudgedChain, parts)
	unjudged = slices.Concat(ownCopies(c), trust(c.Wall.Trusted), unjudged)
	return slices.Concat([]chain{
		{inputChain, "All packets that are delivered here.", rules},
		{unjudgedChain, "Delivered packets to ports of doors that were not judged before, as NAT has changed where they go.", unjudged},
	}, byPorts, chains)
}

// delivered returns parts that do all of last with packets that are delivered to the
// door's ports at its addresses and interfaces.
func (d door) delivered(name string, last []rule) (parts []part) {
	var places []term
	for _, f := range versions {
		places = append(places, toAddresses(f, f.of(d.To))...)
	}
	for _, ports := range byProtocol(d.Ports) {
		p := part{name: name, ports: ports, to: d.To}
		if len(d.To) == 0 {
			p.rules = d.at(nil, nil, last)
		}
		for _, place := range places {
			p.rules = append(p.rules, d.at(nil, rule{place}, last)...)
		}
		parts = append(parts, p)
		if d.ToIsHere {
			parts = append(parts, part{name: name + manyHosts, ports: ports, rules: d.at(nil, rule{toManyHosts}, last)})
		}
	}
	return parts
}

// timeout is how long conntrack keeps a silent UDP flow that a door has admitted. It is a
// named object of the table. All doors with the same timeout share it, and its name tells
// the time. It stays as long as the table does: when one is deleted, newer kernels drop
// all packets that wait in queues (nft_ct_timeout_obj_destroy of net/netfilter/nft_ct.c).
type timeout time.Duration

func (d door) udpTimeout() timeout { return timeout(d.UDPTimeout) }

func (o timeout) seconds() int { return int(time.Duration(o).Seconds()) }

func (o timeout) name() string { return fmt.Sprintf("udp_%d", o.seconds()) }

func (o timeout) set() term {
	return term{text: fmt.Sprintf("ct timeout set %q", o.name()), exprs: func(b *batch) []expr.Any {
		if !b.features.UDPTimeout {
			return nil
		}
		return []expr.Any{&expr.Objref{Type: unix.NFT_OBJECT_CT_TIMEOUT, Name: o.name()}}
	}}
}

func (o timeout) object(table *nftables.Table) nftables.Obj {
	seconds := uint32(o.seconds())
	return &nftables.NamedObj{Table: table, Name: o.name(), Type: nftables.ObjTypeCtTimeout, Obj: &expr.CtTimeout{
		L3Proto: unix.NFPROTO_IPV4, L4Proto: uint8(packet.UDP),
		Policy: expr.CtStatePolicyTimeout{expr.CtStateUDPUNREPLIED: seconds, expr.CtStateUDPREPLIED: seconds},
	}}
}

// timeoutDefaults is held while google/nftables reads or writes an object that may be a
// timeout: the library then uses maps of defaults that the whole process shares.
var timeoutDefaults sync.Mutex

func addTimeout(conn *nftables.Conn, o nftables.Obj) {
	timeoutDefaults.Lock()
	defer timeoutDefaults.Unlock()
	conn.AddObj(o)
}

func namedObjects(conn *nftables.Conn, table *nftables.Table) ([]nftables.Obj, error) {
	timeoutDefaults.Lock()
	defer timeoutDefaults.Unlock()
	return conn.GetNamedObjects(table)
}

func (o timeout) String() string {
	return fmt.Sprintf("\tct timeout %s {\n\t\tprotocol udp\n\t\tl3proto ip\n\t\tpolicy = { unreplied : %[2]d, replied : %[2]d }\n\t}\n",
		o.name(), o.seconds())
}
