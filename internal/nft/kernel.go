//go:build linux

package nft

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// Kernel is a connection to the kernel's nftables. It touches only the tables that it is
// told to. It is safe for concurrent use.
type Kernel struct {
	features Features

	mu      sync.Mutex // held while a transaction is built and sent
	conn    *nftables.Conn
	owned   *Table   // the table installed last, if this connection owns it
	outline *outline // of the owned table
	// timeouts are the timeout objects of earlier tables that are still in the owned
	// table.
	timeouts map[string]bool

	listing *netlink.Conn // reads windows
	seen    reading       // the last one
}

// Window is a door that is open for a source, as the kernel holds it.
type Window struct {
	Door          string
	Source        packet.Source
	Left          time.Duration // time until it closes
	method.Opener               // the comment of the element
	// New: the kernel certainly has no such window. Opening it then takes less work.
	New bool
}

// OpenKernel connects to nftables in the network namespace of the process, and probes the
// kernel's features. The error is [ErrPrivilege] or a [*MissingFeatureError] if that is
// the cause.
func OpenKernel() (*Kernel, error) {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(roomy))
	if err != nil {
		return nil, fmt.Errorf("connecting to nftables: %w", err)
	}
	k := &Kernel{conn: conn}
	if k.listing, err = netlink.Dial(unix.NETLINK_NETFILTER, nil); err == nil {
		k.features, err = probeFeatures(conn)
	}
	if err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

// The largest transaction and the largest answer, in bytes. These are limits, not
// allocated memory.
const (
	sentAtOnce     = 512 << 20
	answeredAtOnce = 256 << 20
)

// roomy makes a socket's buffers large enough for whole transactions. The library sets
// them itself, but for some sizes too small: it leaves out the alignment of messages, and
// the 32 bytes more that the kernel wants (netlink_sendmsg of net/netlink/af_netlink.c).
func roomy(conn *netlink.Conn) error {
	if err := conn.SetWriteBuffer(sentAtOnce); err != nil {
		return err
	}
	return conn.SetReadBuffer(answeredAtOnce)
}

// Close closes the connection. Installed tables stay.
func (k *Kernel) Close() error {
	var err error
	if k.listing != nil {
		err = k.listing.Close()
		k.listing = nil
	}
	return errors.Join(err, k.conn.CloseLasting())
}

// Features returns the optional features of the kernel.
func (k *Kernel) Features() Features { return k.features }

// DisableFeatures limits the Kernel to the features in f, as those of an older kernel.
func (k *Kernel) DisableFeatures(f Features) { k.features = f }

// OpenWindows opens windows, or refreshes them, each for its Left, in one transaction:
// all of them or, after an error, none. No two may be of the same door and source.
func (k *Kernel) OpenWindows(table string, windows []Window) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	changes := windowChanges(table, windows)
	// Adding an element that exists does not change its timeout (since Linux 6.12 if the
	// timeout is the same, before that always). Deleting an element that does not exist
	// fails. So the transaction adds, deletes and adds. It is tried once more in case a
	// window expires between the first two. The kernel cleans up at once after a
	// deletion, which takes longer than all the rest. So this is left out if there
	// certainly is no element.
	var err error
	for range 2 {
		err = nil
		for _, c := range changes {
			if len(c.passing) > 0 {
				err = errors.Join(err,
					k.conn.SetAddElements(c.set, c.passing),
					k.conn.SetDeleteElements(c.set, c.passing))
			}
			err = errors.Join(err, k.conn.SetAddElements(c.set, c.elements))
		}
		if err == nil {
			err = k.conn.Flush()
		}
		if !errors.Is(err, unix.ENOENT) {
			break
		}
	}
	if errors.Is(err, unix.ENOBUFS) && k.areOpen(changes) {
		// The answer was lost, which does not say that the transaction was.
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening %s: %w", theFirst(windows), err)
	}
	return nil
}

// windowChange is the change of one set of windows.
type windowChange struct {
	set      *nftables.Set
	passing  []nftables.SetElement // added, if they are not there, and then deleted
	elements []nftables.SetElement
}

func windowChanges(table string, windows []Window) []*windowChange {
	var changes []*windowChange
	for _, w := range windows {
		f := familyOf(w.Source)
		i := slices.IndexFunc(changes, func(c *windowChange) bool { return c.set.Name == openSet(f) })
		if i < 0 {
			i = len(changes)
			changes = append(changes, &windowChange{
				set: &nftables.Set{Table: tableNamed(table), Name: openSet(f), KeyType: kindOf(f, true), HasTimeout: true}})
		}
		key := f.keyAt(w.Door, w.Source)
		if !w.New {
			changes[i].passing = append(changes[i].passing, passing(key))
		}
		// The kernel takes less than a millisecond for no timeout at all.
		changes[i].elements = append(changes[i].elements, nftables.SetElement{Key: key, Timeout: max(w.Left, time.Millisecond), Comment: w.Opener.Text()})
	}
	return changes
}

// passing returns an element to be added, if it is not there, and then deleted.
func passing(key []byte) nftables.SetElement {
	return nftables.SetElement{Key: key, Timeout: ruleset.MaxWindow}
}

// areOpen reports whether the windows that were to be opened are open.
func (k *Kernel) areOpen(changes []*windowChange) bool {
	for _, c := range changes {
		if _, err := k.conn.FindSetElements(c.set, c.elements); err != nil {
			return false
		}
	}
	return true
}

// theFirst describes windows by the first of them.
func theFirst(windows []Window) string {
	text := fmt.Sprintf("%s for %s", windows[0].Door, windows[0].Source)
	if len(windows) > 1 {
		text += fmt.Sprintf(" and %d more", len(windows)-1)
	}
	return text
}

// CloseWindow closes a window, and reports whether it was open.
func (k *Kernel) CloseWindow(table, door string, source packet.Source) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := windowChanges(table, []Window{{Door: door, Source: source}})[0]
	err := k.conn.SetDeleteElements(c.set, c.elements)
	if err == nil {
		err = k.conn.Flush()
	}
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("closing %s for %s: %w", door, source, err)
	}
	return true, nil
}

// Describe updates the sets of an installed table that describe the host: the ports with
// a listener, and the interfaces that lead to the rest of the world.
func (k *Kernel) Describe(table string, host effective.Host) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	b := &batch{conn: k.conn, table: tableNamed(table)}
	for _, s := range hostSets(&host) {
		k.conn.FlushSet(b.named(s))
		if len(s.elements) > 0 {
			k.conn.SetAddElements(b.named(s), s.contents())
		}
	}
	if err := k.conn.Flush(); err != nil {
		return fmt.Errorf("telling table inet %s of this host: %w", table, err)
	}
	return nil
}

// Trapped returns how long the kernel still ignores a source's knocks at a door, and 0 if
// it does not ignore them.
func (k *Kernel) Trapped(c *effective.Config, index int, source packet.Source) (left time.Duration, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, trap := range trapsOf(c, door{&c.Doors[index]}, source) {
		set := &nftables.Set{Table: tableNamed(c.Wall.Table), Name: trap.set, KeyType: trap.kind}
		elements, err := k.conn.FindSetElements(set, []nftables.SetElement{{Key: trap.key}})
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("asking whether %s is trapped: %w", source, err)
		}
		for _, e := range elements {
			left = max(left, e.Expires)
		}
	}
	return left, nil
}

// Counts are the packets that the kernel itself has counted at one door since its table
// was made.
type Counts struct {
	Admitted uint64 // first packets of sources with an open window
	Refused  uint64 // packets that were dropped or rejected
}

// Counts reads the counters of all doors of the table, by door name.
func (k *Kernel) Counts(table string) (map[string]Counts, error) {
	var objects []nftables.Obj
	err := k.reading(func() (err error) {
		objects, err = namedObjects(k.conn, tableNamed(table))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the counters of table inet %s: %w", table, err)
	}
	counts := map[string]Counts{}
	for _, o := range objects {
		named, _ := o.(*nftables.NamedObj)
		c, ok := named.Obj.(*expr.Counter)
		if !ok {
			continue
		}
		if door, ok := strings.CutSuffix(named.Name, admittedCounter("")); ok {
			n := counts[door]
			n.Admitted = c.Packets
			counts[door] = n
		}
		if door, ok := strings.CutSuffix(named.Name, refusedCounter("")); ok {
			n := counts[door]
			n.Refused = c.Packets
			counts[door] = n
		}
	}
	return counts, nil
}

func tableNamed(name string) *nftables.Table {
	return &nftables.Table{Name: name, Family: nftables.TableFamilyINet}
}
