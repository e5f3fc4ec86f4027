package sessions

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Seen says of which directions of a connection packets came through this host.
type Seen uint8

// The directions.
const (
	Both        Seen = iota
	ToService        // nothing came back, for silentAfter at least
	FromService      // what the clients send takes another way
)

// silentAfter is for how many seconds a client has heard nothing that is called
// unanswered. TCP sends its first packet again after one, and then after two more
// (RFC 6298).
const silentAfter = 2

// Of linux/netfilter/nf_conntrack_tcp.h: the state of a connection of which nothing came
// but its first packet, and that of one whose client has given up.
const (
	conntrackSYNSent = 1
	conntrackClose   = 8
)

// maxListed is of how many connections the directions are looked at: listing one takes
// about a kilobyte for a moment.
const maxListed = 16384

// Directions calls each with the TCP connections that conntrack knows, and of which
// directions it has seen packets. Where conntrack knows more than 16,384 connections, that
// is an error.
func Directions(each func(Session, Seen)) error {
	known, _, err := Usage()
	if err != nil {
		return err
	}
	if known > maxListed {
		return fmt.Errorf("conntrack knows %d connections, and of more than %d it is not looked at which directions pass", known, maxListed)
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
	patience := timeoutSYNSent()
	for _, f := range flows {
		if f.ProtoInfo.TCP == nil {
			continue
		}
		switch state := f.ProtoInfo.TCP.State; {
		case f.Status.SeenReply():
			each(t.sessionOf(f.TupleOrig), Both)
		case state == conntrackSYNSent && int(f.Timeout)+silentAfter <= patience, state == conntrackClose:
			each(t.sessionOf(f.TupleOrig), ToService)
		case state == conntrackEstablished && !f.Status.Assured():
			// It was taken up in the middle, by what this end sent.
			each(t.sessionOf(f.TupleReply), FromService)
		}
	}
	return nil
}

// timeoutSYNSent is for how many seconds conntrack remembers a first packet that nothing
// answers.
func timeoutSYNSent() int {
	b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_syn_sent")
	if seconds, numberErr := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && numberErr == nil {
		return seconds
	}
	return 120 // the kernel's default
}
