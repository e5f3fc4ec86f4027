package client

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/knockwall/knockwall/internal/fwknop"
	"github.com/knockwall/knockwall/internal/packet"
)

// Fwknop knocks with the datagrams of fwknop, at hosts with fwknopd or knockwall. It is safe
// for concurrent use.
type Fwknop struct {
	Keys    fwknop.Keys
	User    string        // that the datagram names
	Ports   []packet.Port // to open
	Port    uint16        // UDP, to send to
	Timeout time.Duration // how long to open; 0: as the host says
	Source  Source
}

// Knock sends a datagram to one address of the host. It returns an error if it cannot make
// or send it. It returns the address that the datagram names. That is not valid if the host
// should take the one that it sees.
func (f *Fwknop) Knock(ctx context.Context, host netip.Addr) (source netip.Addr, err error) {
	if source, err = f.Source.Towards(ctx, host); err != nil {
		return source, err
	}
	datagram, err := fwknop.Datagram(f.Keys, fwknop.Request{
		User: f.User, Time: time.Now(), Kind: fwknop.Access, Source: source.WithZone(""), Ports: f.Ports, Timeout: f.Timeout,
	})
	if err != nil {
		return source, fmt.Errorf("making a datagram of fwknop: %w", err)
	}
	if err := sendFrom(ctx, source, netip.AddrPortFrom(host, f.Port), datagram); err != nil {
		return source, fmt.Errorf("sending a datagram of fwknop to %d/udp of %s: %w", f.Port, host, reason(err))
	}
	return source, nil
}
