package client

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/spa"
	"github.com/knockwall/knockwall/internal/sshkeys"
)

// Keyed knocks at a door with datagrams that are signed with ssh keys. It is safe for
// concurrent use.
type Keyed struct {
	Identity spa.Public // of the host
	Door     string
	Port     uint16 // UDP
	What     spa.What
	// Keys sign one datagram each, as the host does not say which of them it knows.
	Keys   []sshkeys.Key
	Source Source
	// Said is told each datagram before it is signed. The source is not valid if the host
	// takes the one that it sees.
	Said func(host netip.Addr, key sshkeys.Key, source netip.Addr)

	mu   sync.Mutex
	last time.Time // of the latest datagram
}

// Knock sends the datagrams to one address of the host. A key that cannot sign, or whose
// datagram cannot be sent, does not stop the others. If no datagram was sent, the error has
// the reason for each key.
func (k *Keyed) Knock(ctx context.Context, host netip.Addr) error {
	source, err := k.Source.Towards(ctx, host)
	if err != nil {
		return err
	}
	var failed []error
	for _, key := range k.Keys {
		if err := ctx.Err(); err != nil { // no key is asked in vain, as it may ask its owner
			return err
		}
		if err := k.knockWith(ctx, key, source, host); err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) < len(k.Keys) {
		return nil
	}
	return errors.Join(failed...)
}

func (k *Keyed) knockWith(ctx context.Context, key sshkeys.Key, source, host netip.Addr) error {
	k.Said(host, key, source)
	datagram, err := spa.Seal(k.Identity, spa.Knock{
		What: k.What, Time: k.now(), Door: spa.HashDoor(k.Door), Source: source.WithZone(""),
	}, key.Public, key.Sign)
	if err != nil {
		return fmt.Errorf("signing a knock with %s: %w", key, err)
	}
	if err := sendFrom(ctx, source, netip.AddrPortFrom(host, k.Port), datagram); err != nil {
		return fmt.Errorf("sending a signed knock to %d/udp of %s: %w", k.Port, host, reason(err))
	}
	return nil
}

// now returns the time, in milliseconds that no other datagram has. A host takes from each
// key only knocks with later and later times, and a Ring may have a key twice, with its
// certificate and without.
func (k *Keyed) now() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now().Truncate(time.Millisecond)
	if earliest := k.last.Add(time.Millisecond); now.Before(earliest) {
		now = earliest
	}
	k.last = now
	return now
}
