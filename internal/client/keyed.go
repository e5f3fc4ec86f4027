package client

import (
	"context"
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

// Knock sends the datagrams to one address of the host. It returns an error if it cannot
// sign or send one.
func (k *Keyed) Knock(ctx context.Context, host netip.Addr) error {
	source, err := k.Source.Towards(ctx, host)
	if err != nil {
		return err
	}
	for _, key := range k.Keys {
		k.Said(host, key, source)
		datagram, err := spa.Seal(k.Identity, spa.Knock{
			What: k.What, Time: k.now(), Door: spa.HashDoor(k.Door), Source: source.WithZone(""),
		}, key.Public, key.Sign)
		if err != nil {
			return fmt.Errorf("signing a knock with %s: %w", key, err)
		}
		if err := sendFrom(ctx, source, netip.AddrPortFrom(host, k.Port), datagram); err != nil {
			return fmt.Errorf("sending a signed knock to %d/udp of %s: %w", k.Port, host, err)
		}
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
