package sessions

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Seen is the directions of a connection in which packets passed this host.
type Seen uint8

// The directions.
const (
	Both        Seen = iota
	Over             // both, and the connection is over
	ToService        // no answer for at least silentAfter
	FromService      // the client's packets take another route
)

// silentAfter is after how many seconds a client without an answer counts as unanswered.
// TCP repeats its SYN after one second, and again two seconds later (RFC 6298).
const silentAfter = 2

// TCP states of linux/netfilter/nf_conntrack_tcp.h: SYN_SENT, a connection of which
// conntrack saw only the first packet, the first state of one that both ends have closed,
// and the state of one whose client has given up.
const (
	conntrackSYNSent = 1
	conntrackLastACK = 6
	conntrackClose   = 8
)

// maxListed is for how many connections the directions are examined. Listing one takes
// about a kilobyte of memory for a moment.
const maxListed = 16384

// Directions calls each with every TCP connection in conntrack and the directions in
// which packets passed. If conntrack has more than 16,384 connections, it returns an
// error.
func Directions(each func(Session, Seen)) error {
	known, _, err := Usage()
	if err != nil {
		return err
	}
	if known > maxListed {
		return fmt.Errorf("conntrack has %d connections, and the check of their directions covers %d at most", known, maxListed)
	}
	t, err := open()
	if err != nil {
		return err
	}
	defer t.conn.Close()
	flows, err := t.flows(false)
	if err != nil {
		return err
	}
	timeout := timeoutSYNSent()
	for _, f := range flows {
		if f.ProtoInfo.TCP == nil {
			continue
		}
		switch state := f.ProtoInfo.TCP.State; {
		case f.Status.SeenReply() && state >= conntrackLastACK:
			each(t.sessionOf(f.TupleOrig), Over)
		case f.Status.SeenReply():
			each(t.sessionOf(f.TupleOrig), Both)
		case state == conntrackSYNSent && int(f.Timeout)+silentAfter <= timeout, state == conntrackClose:
			each(t.sessionOf(f.TupleOrig), ToService)
		case state == conntrackEstablished && !f.Status.Assured():
			// Conntrack picked the connection up in the middle, from a packet of this
			// end.
			each(t.sessionOf(f.TupleReply), FromService)
		}
	}
	return nil
}

// timeoutSYNSent returns for how many seconds conntrack remembers an unanswered SYN.
func timeoutSYNSent() int {
	b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_syn_sent")
	if seconds, numberErr := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && numberErr == nil {
		return seconds
	}
	return 120 // the kernel's default
}
