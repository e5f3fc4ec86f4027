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
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// Kernel is the kernel's nftables, as far as knockwall uses them. It touches
// no table but those it is told to. It is safe for concurrent use.
type Kernel struct {
	features Features

	mu    sync.Mutex // a transaction is built and sent as a whole
	conn  *nftables.Conn
	owned *Table // that was installed last, if it is this connection's own,
	// timeouts are the objects of earlier tables that are still in it.
	timeouts map[string]bool
}

// Window is a door that stands open for a source, as the kernel holds it.
type Window struct {
	Door   string
	Source packet.Source
	Left   time.Duration
	// New: the kernel has none yet, for certain. Then there is less to do to open it.
	New bool
}

// OpenKernel connects to nftables in the network namespace of the process, and
// finds out how it can queue packets. The error is [ErrPrivilege] or a
// [*MissingFeatureError] where those say why.
func OpenKernel() (*Kernel, error) {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(roomy))
	if err != nil {
		return nil, fmt.Errorf("connecting to nftables: %w", err)
	}
	k := &Kernel{conn: conn}
	if k.features, err = probeFeatures(conn); err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

// How large a transaction may be, and its answers. These are limits, and no memory.
const (
	sentAtOnce     = 64 << 20
	answeredAtOnce = 256 << 20
)

// roomy lets a socket take whole transactions. The library gives it room by itself, but
// of some sizes too little: it leaves out how messages are aligned, and that the kernel
// wants 32 bytes more (netlink_sendmsg).
func roomy(conn *netlink.Conn) error {
	if err := conn.SetWriteBuffer(sentAtOnce); err != nil {
		return err
	}
	return conn.SetReadBuffer(answeredAtOnce)
}

// Close ends the connection. What was installed stays.
func (k *Kernel) Close() error { return k.conn.CloseLasting() }

// Features returns what was found of that which a kernel may have or not.
func (k *Kernel) Features() Features { return k.features }

// DisableFeatures makes use of no more features than an older kernel has.
func (k *Kernel) DisableFeatures(f Features) { k.features = f }

// OpenWindows opens windows, each for as long as it says, or refreshes them to that
// length, in one transaction: all of them or, after an error, none. No two are the
// same door's for the same source.
func (k *Kernel) OpenWindows(table string, windows []Window) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	changes := windowChanges(table, windows)
	// Adding an element that is there leaves its timeout alone (from Linux 6.12 on if
	// it is the same, before that always), and deleting one that is not there fails:
	// so add, delete, add. And once more, if a window's time is up between the first
	// two. The kernel cleans up at once after what was deleted, which takes longer than
	// all the rest: so not where it is certain that there is nothing.
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

// windowChange is what is to be changed in the set of a door's windows.
type windowChange struct {
	set      *nftables.Set
	passing  []nftables.SetElement // to be there for a moment, if they are not, and then gone
	elements []nftables.SetElement
}

func windowChanges(table string, windows []Window) []*windowChange {
	var changes []*windowChange
	for _, w := range windows {
		f := familyOf(w.Source)
		name := openSet(w.Door, f)
		i := slices.IndexFunc(changes, func(c *windowChange) bool { return c.set.Name == name })
		if i < 0 {
			i = len(changes)
			changes = append(changes, &windowChange{
				set: &nftables.Set{Table: tableNamed(table), Name: name, KeyType: f.kind, HasTimeout: true}})
		}
		key := f.key(w.Source)
		if !w.New {
			changes[i].passing = append(changes[i].passing, nftables.SetElement{Key: key, Timeout: ruleset.MaxWindow})
		}
		// The kernel takes less than a millisecond for no end at all.
		changes[i].elements = append(changes[i].elements, nftables.SetElement{Key: key, Timeout: max(w.Left, time.Millisecond)})
	}
	return changes
}

// areOpen reports whether windows that were to be opened are open.
func (k *Kernel) areOpen(changes []*windowChange) bool {
	for _, c := range changes {
		if _, err := k.conn.FindSetElements(c.set, c.elements); err != nil {
			return false
		}
	}
	return true
}

// theFirst names windows by the first of them.
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

// Describe tells a table that stands what has changed of its host: who listens, and
// which interfaces lead to the rest of the world.
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

// Trapped returns for how long the kernel keeps a source from knocking at a door, and
// 0 if it does not.
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

// Counts are packets that the kernel itself has counted at one door since its
// table was made.
type Counts struct {
	Admitted uint64 // first packets of sources with an open window
	Refused  uint64 // packets that were dropped or rejected
}

// Counts reads the counters of all doors of the table.
func (k *Kernel) Counts(table string) (map[string]Counts, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	objects, err := namedObjects(k.conn, tableNamed(table))
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
