package ruleset

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/packet"
)

// Kernel is the kernel's nftables, as far as knockwall uses them. It touches
// no table but those it is told to. It is safe for concurrent use.
type Kernel struct {
	features Features

	mu    sync.Mutex // a transaction is built and sent as a whole
	conn  *nftables.Conn
	owned *Table // that was installed last, if it is this connection's own
}

// Window is a door that stands open for a source, as the kernel holds it.
type Window struct {
	Door   string
	Source packet.Source
	Left   time.Duration
}

// OpenKernel connects to nftables in the network namespace of the process, and
// finds out how it can queue packets. The error is [ErrPrivilege] or a
// [*MissingFeatureError] where those say why.
func OpenKernel() (*Kernel, error) {
	conn, err := nftables.New(nftables.AsLasting())
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

// Close ends the connection. What was installed stays.
func (k *Kernel) Close() error { return k.conn.CloseLasting() }

// Features returns what was found of that which a kernel may have or not.
func (k *Kernel) Features() Features { return k.features }

// Forgo makes use of no more features than an older kernel has.
func (k *Kernel) Forgo(f Features) { k.features = f }

// OpenWindow opens a window for as long as is said, or refreshes it to that
// length.
func (k *Kernel) OpenWindow(table string, w Window) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, e := element(table, w)
	_, passing := element(table, Window{Door: w.Door, Source: w.Source, Left: MaxWindow})
	// Adding an element that is there leaves its timeout alone before Linux
	// 6.12, and deleting one that is not there fails: so add, delete, add. And once
	// more, if a window's time is up between the first two.
	var err error
	for range 2 {
		err = errors.Join(
			k.conn.SetAddElements(s, passing),
			k.conn.SetDeleteElements(s, e),
			k.conn.SetAddElements(s, e))
		if err == nil {
			err = k.conn.Flush()
		}
		if !errors.Is(err, unix.ENOENT) {
			break
		}
	}
	if errors.Is(err, unix.ENOBUFS) {
		// The answer was lost, which does not say that the transaction was.
		if _, err := k.conn.FindSetElements(s, e); err == nil {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("opening %s for %s: %w", w.Door, w.Source, err)
	}
	return nil
}

// CloseWindow closes a window, and reports whether it was open.
func (k *Kernel) CloseWindow(table, door string, source packet.Source) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, e := element(table, Window{Door: door, Source: source})
	err := k.conn.SetDeleteElements(s, e)
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

// element names the set that holds a window, and the window's element in it.
func element(table string, w Window) (*nftables.Set, []nftables.SetElement) {
	f := familyOf(w.Source.Addr())
	s := &nftables.Set{Table: tableNamed(table), Name: openSet(w.Door, f), KeyType: f.kind, HasTimeout: true}
	// The kernel takes less than a millisecond for no end at all.
	return s, []nftables.SetElement{{Key: w.Source.Addr().AsSlice(), Timeout: max(w.Left, time.Millisecond)}}
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
	objects, err := k.conn.GetObjects(tableNamed(table))
	if err != nil {
		return nil, fmt.Errorf("reading the counters of table inet %s: %w", table, err)
	}
	counts := map[string]Counts{}
	for _, o := range objects {
		c, ok := o.(*nftables.CounterObj)
		if !ok {
			continue
		}
		if door, ok := strings.CutSuffix(c.Name, admittedCounter("")); ok {
			n := counts[door]
			n.Admitted = c.Packets
			counts[door] = n
		}
		if door, ok := strings.CutSuffix(c.Name, refusedCounter("")); ok {
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
