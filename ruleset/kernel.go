package ruleset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/packet"
)

// Kernel is the kernel's nftables, as far as knockwall uses them. It touches
// no table but those it is told to. It is safe for concurrent use.
type Kernel struct {
	nativeQueue bool

	mu   sync.Mutex // a transaction is built and sent as a whole
	conn *nftables.Conn
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
	if k.nativeQueue, err = probeQueue(conn); err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

// Close ends the connection. What was installed stays.
func (k *Kernel) Close() error { return k.conn.CloseLasting() }

// NativeQueue reports whether the kernel has the nft expression "queue"; else
// packets are queued by x_tables' NFQUEUE target.
func (k *Kernel) NativeQueue() bool { return k.nativeQueue }

// Install puts a table in place of the one of that name, if there is one, with
// windows open in it. Packets meet either the old table or the new one, never
// none. After an error everything is as it was.
func (k *Kernel) Install(t *Table, windows []Window) error {
	k.mu.Lock()
	defer k.mu.Unlock()

	table := tableNamed(t.Name)
	k.conn.AddTable(table) // so that there is one to delete
	k.conn.DelTable(table)
	b := &batch{conn: k.conn, table: k.conn.AddTable(table), nativeQueue: k.nativeQueue}
	b.add(t, windows)
	err := k.conn.Flush()
	if errors.Is(err, unix.ENOBUFS) {
		// The answer was lost, which does not say that the transaction was.
		all, readErr := k.standing(func(name string) bool { return name == t.Name })
		if readErr == nil && len(all) == 1 && all[0].Names(t.numbers) {
			return nil
		}
	}
	if err != nil {
		return k.explain(fmt.Errorf("installing table inet %s: %w", t.Name, err))
	}
	return nil
}

// Remove deletes the table, and reports whether there was one.
func (k *Kernel) Remove(name string) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.conn.DelTable(tableNamed(name))
	err := k.conn.Flush()
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("removing table inet %s: %w", name, err)
	}
	return true, nil
}

// OpenWindow opens a window for as long as is said, or refreshes it to that
// length.
func (k *Kernel) OpenWindow(table string, w Window) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, e := element(table, w)
	// Adding an element that is there leaves its timeout alone before Linux
	// 6.12, and deleting one that is not there fails: so add, delete, add.
	err := errors.Join(
		k.conn.SetAddElements(s, e),
		k.conn.SetDeleteElements(s, e),
		k.conn.SetAddElements(s, e))
	if err == nil {
		err = k.conn.Flush()
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
	f := ipv6
	if w.Source.Addr().Is4() {
		f = ipv4
	}
	s := &nftables.Set{Table: tableNamed(table), Name: openSet(w.Door, f), KeyType: f.kind, HasTimeout: true}
	return s, []nftables.SetElement{{Key: w.Source.Addr().AsSlice(), Timeout: w.Left}}
}

// Standing is a table that was found in the kernel.
type Standing struct {
	Table   string
	Windows []Window
	Groups  []uint16 // NFLOG groups that its rules name
	Queues  []uint16 // queues that its rules name
}

// Standing reads the table of that name: its windows, and which numbers its
// rules use. It returns nil if there is no such table.
func (k *Kernel) Standing(name string) (*Standing, error) {
	all, err := k.retry(func(t string) bool { return t == name })
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return all[0], nil
}

// Others reads the tables of walls that have another name.
func (k *Kernel) Others(name string) ([]*Standing, error) {
	return k.retry(func(t string) bool { return t != name })
}

// retry reads the walls' tables whose name is wanted; a dump that something
// else's change interrupts is begun again.
func (k *Kernel) retry(wanted func(name string) bool) ([]*Standing, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for try := 0; ; try++ {
		all, err := k.standing(wanted)
		if !errors.Is(err, unix.EINTR) || try == 10 {
			return all, err
		}
	}
}

// standing reads the walls' tables whose name is wanted. A wall's table is known
// by its chains; what else there is may be large, and is left alone.
func (k *Kernel) standing(wanted func(string) bool) ([]*Standing, error) {
	chains, err := k.conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("listing chains: %w", err)
	}
	var all []*Standing
	for _, wall := range chains {
		if wall.Name != wallChain || !wanted(wall.Table.Name) {
			continue
		}
		s := &Standing{Table: wall.Table.Name}
		lookedUp := map[string]int{} // by set: how many leading bits of an address
		for _, c := range chains {
			if c.Table.Name != s.Table {
				continue
			}
			rules, err := k.conn.GetRules(tableNamed(s.Table), c)
			if err != nil {
				return nil, fmt.Errorf("reading the rules of table inet %s: %w", s.Table, err)
			}
			for _, r := range rules {
				s.note(r.Exprs, lookedUp)
			}
		}
		if err := k.readWindows(tableNamed(s.Table), s, lookedUp); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// readWindows reads the windows of a table. How long their sources' prefixes are
// is not in the elements, but in the rules that look them up.
func (k *Kernel) readWindows(t *nftables.Table, s *Standing, lookedUp map[string]int) error {
	sets, err := k.conn.GetSets(t)
	if err != nil {
		return fmt.Errorf("reading the sets of table inet %s: %w", t.Name, err)
	}
	for _, set := range sets {
		door, f, ok := doorOfSet(set.Name)
		length, known := lookedUp[set.Name]
		if !ok || !known || !set.HasTimeout || int(set.KeyType.Bytes) != f.length {
			continue
		}
		elements, err := k.conn.GetSetElements(set)
		if err != nil {
			return fmt.Errorf("reading the windows of the door %s: %w", door, err)
		}
		for _, e := range elements {
			if addr, ok := netip.AddrFromSlice(e.Key); ok && e.Expires > 0 {
				s.Windows = append(s.Windows, Window{door, packet.Source{Prefix: netip.PrefixFrom(addr, length)}, e.Expires})
			}
		}
	}
	return nil
}

// doorOfSet returns the door whose windows a set of this name holds.
func doorOfSet(name string) (string, family, bool) {
	for _, f := range families {
		if door, ok := strings.CutSuffix(name, openSet("", f)); ok {
			return door, f, true
		}
	}
	return "", family{}, false
}

// note collects the groups and queues that a rule names, and by how many leading
// bits it looks sources up.
func (s *Standing) note(exprs []expr.Any, lookedUp map[string]int) {
	mask := 0 // leading bits of the value that was loaded last
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Payload:
			mask = int(e.Len) * 8
		case *expr.Bitwise:
			mask = leadingOnes(e.Mask)
		case *expr.Lookup:
			lookedUp[e.SetName] = mask
		case *expr.Log:
			s.Groups = append(s.Groups, e.Group)
		case *expr.Queue:
			s.Queues = append(s.Queues, e.Num)
		case *expr.Target:
			if info, ok := e.Info.(*xt.Unknown); ok && e.Name == "NFQUEUE" && len(*info) >= 2 {
				s.Queues = append(s.Queues, binary.NativeEndian.Uint16(*info))
			}
		}
	}
}

func leadingOnes(mask []byte) (n int) {
	for _, b := range mask {
		n += bits.LeadingZeros8(^b)
		if b != 0xff {
			break
		}
	}
	return n
}

// Names reports whether the table's rules name the group or a queue of n.
func (s *Standing) Names(n Numbers) bool {
	return slices.Contains(s.Groups, n.LogGroup) ||
		slices.Contains(s.Queues, n.Admitted) || slices.Contains(s.Queues, n.Strangers)
}

// Counts are packets that the kernel itself has counted at one door since the
// table was installed.
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

// batch is a transaction in which a table is built.
type batch struct {
	conn        *nftables.Conn
	table       *nftables.Table
	nativeQueue bool
}

// add puts all of t into the transaction. Mistakes in building it surface when
// it is sent.
func (b *batch) add(t *Table, windows []Window) {
	for _, name := range t.counters {
		b.conn.AddObj(&nftables.CounterObj{Table: b.table, Name: name})
	}
	for _, s := range t.sets {
		b.addSet(s, windows)
	}
	chains := make([]*nftables.Chain, len(t.chains))
	for i, c := range t.chains {
		chains[i] = &nftables.Chain{Name: c.name, Table: b.table}
		if c.name == baseChain {
			policy := nftables.ChainPolicyAccept
			chains[i].Type = nftables.ChainTypeFilter
			chains[i].Hooknum = nftables.ChainHookPrerouting
			chains[i].Priority = nftables.ChainPriorityMangle
			chains[i].Policy = &policy
		}
		b.conn.AddChain(chains[i])
	}
	for i, c := range t.chains {
		for _, r := range c.rules {
			b.addRule(chains[i], r)
		}
	}
}

func (b *batch) addRule(c *nftables.Chain, r rule) {
	var exprs []expr.Any
	for _, t := range r {
		exprs = append(exprs, t.exprs(b)...)
	}
	b.conn.AddRule(&nftables.Rule{Table: b.table, Chain: c, Exprs: exprs})
}

func (b *batch) addSet(s set, windows []Window) {
	n := &nftables.Set{
		Table: b.table, Name: s.name, KeyType: s.family.kind, Size: s.size,
		Interval: s.elements != nil, HasTimeout: s.elements == nil,
		Dynamic: s.dynamic, Timeout: s.timeout,
	}
	elements := prefixElements(s.elements, true)
	for _, w := range windows {
		f := ipv6
		if w.Source.Addr().Is4() {
			f = ipv4
		}
		if s.name == openSet(w.Door, f) {
			elements = append(elements, nftables.SetElement{Key: w.Source.Addr().AsSlice(), Timeout: w.Left})
		}
	}
	b.conn.AddSet(n, elements)
}

// lookup makes an anonymous set of the elements, and the expression that looks
// a key up in it.
func (b *batch) lookup(kind nftables.SetDatatype, interval bool, elements []nftables.SetElement) *expr.Lookup {
	s := &nftables.Set{Table: b.table, Anonymous: true, Constant: true, Interval: interval, KeyType: kind}
	b.conn.AddSet(s, elements)
	return &expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID}
}
