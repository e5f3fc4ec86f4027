package ruleset

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// attempts is how often a change is begun again because somebody else has
// changed the rules meanwhile.
const attempts = 20

// Install puts a table in place of the one of that name, if there is one, in one
// transaction: packets meet either the old table or the new one, never none.
// After an error everything is as it was. The windows are open in it then.
//
// Of a wall's table that stands, what is the same in the new one stays: the hook,
// as the kernel drops all packets that wait in queues when one is taken away, and
// sets with what is in them, so that windows keep their time to the tick. If
// replaced names another table, it is deleted in the same transaction.
//
// Where the kernel knows tables with an owner, this connection owns the table,
// and nobody else can change it. It stays when the owner has gone; that of a
// trial does not.
func (k *Kernel) Install(t *Table, windows []Window, replaced string) error {
	return k.put(t, windows, replaced, true)
}

// Restore puts a table in place of whatever has that name, in one transaction,
// and leaves nothing of that.
func (k *Kernel) Restore(t *Table, windows []Window) error {
	return k.put(t, windows, "", false)
}

func (k *Kernel) put(t *Table, windows []Window, replaced string, keep bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.unhindered(func() error { return k.tryPut(t, windows, replaced, keep) })
	if errors.Is(err, unix.ENOBUFS) {
		// The answer was lost, which does not say that the transaction was.
		if intact, readErr := k.intact(t); readErr == nil && intact {
			return nil
		}
	}
	if err != nil {
		return k.explain(t.Name, fmt.Errorf("installing table inet %s: %w", t.Name, err))
	}
	return nil
}

// unhindered does something once more if somebody else's change has come in
// between.
func (k *Kernel) unhindered(do func() error) (err error) {
	for range attempts {
		if err = do(); !errors.Is(err, unix.ERESTART) && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return err
}

func (k *Kernel) tryPut(t *Table, windows []Window, replaced string, keep bool) error {
	// If anything changes after this has been read, the transaction fails.
	generation, err := k.conn.GetGen()
	if err != nil {
		return err
	}
	old, err := k.find(t.Name)
	if err != nil {
		return err
	}
	table := tableNamed(t.Name)
	table.Flags = k.flags(t)
	b := &batch{conn: k.conn, table: table, nativeQueue: k.features.NativeQueue}
	if keep && old.keeps(table.Flags) {
		k.conn.AddTable(table) // to own it again
		b.clear(t, old)
	} else {
		if old != nil {
			k.conn.DelTable(table)
		}
		old = &found{}
		k.conn.AddTable(table)
	}
	b.add(t, windows, old)
	if replaced != "" && replaced != t.Name {
		k.conn.DelTable(tableNamed(replaced))
	}
	return k.conn.FlushWithGenID(generation.ID)
}

// flags returns the flags that the table is to have.
func (k *Kernel) flags(t *Table) nftables.TableFlags {
	switch {
	case !k.features.Ownership:
		return 0
	case t.Trial:
		return nftables.TableFlagOwner
	}
	return nftables.TableFlagOwner | nftables.TableFlagPersist
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
		return false, k.explain(name, fmt.Errorf("removing table inet %s: %w", name, err))
	}
	return true, nil
}

// batch is a transaction in which a table is built.
type batch struct {
	conn        *nftables.Conn
	table       *nftables.Table
	nativeQueue bool
}

// clear takes out of a table that stands what the new one has not, and all
// rules.
func (b *batch) clear(t *Table, old *found) {
	b.conn.FlushTable(b.table)
	for _, c := range old.chains {
		if !t.hasChain(c.Name) {
			b.conn.DelChain(&nftables.Chain{Name: c.Name, Table: b.table})
		}
	}
	for _, s := range old.sets {
		if !s.Anonymous && !t.hasSet(old, s) {
			b.conn.DelSet(&nftables.Set{Name: s.Name, Table: b.table})
			delete(old.sets, s.Name)
		}
	}
	for name := range old.counters {
		if !t.hasCounter(name) {
			b.conn.DeleteObject(&nftables.CounterObj{Table: b.table, Name: name})
		}
	}
}

func (t *Table) hasChain(name string) bool {
	for _, c := range t.chains {
		if c.name == name {
			return true
		}
	}
	return false
}

func (t *Table) hasCounter(name string) bool {
	for _, c := range t.counters {
		if c == name {
			return true
		}
	}
	return false
}

// hasSet reports whether the table has the same set as one that stands, and
// means the same by what is in it.
func (t *Table) hasSet(old *found, s *nftables.Set) bool {
	for _, want := range t.sets {
		if want.name == s.Name {
			return want.elements == nil && !s.Interval && s.HasTimeout && want.dynamic == s.Dynamic &&
				int(s.KeyType.Bytes) == want.family.length && s.Size == want.size && s.Timeout == want.timeout &&
				old.lookedUp[s.Name] == want.bits
		}
	}
	return false
}

// add puts into the transaction all of t that is not there yet. Mistakes in
// building it surface when it is sent.
func (b *batch) add(t *Table, windows []Window, old *found) {
	for _, name := range t.counters {
		if !old.counters[name] {
			b.conn.AddObj(&nftables.CounterObj{Table: b.table, Name: name})
		}
	}
	for _, s := range t.sets {
		b.addSet(s, windows, old)
	}
	chains := make([]*nftables.Chain, len(t.chains))
	for i, c := range t.chains {
		chains[i] = &nftables.Chain{Name: c.name, Table: b.table}
		if old.chain(c.name) != nil {
			continue
		}
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

func (b *batch) addSet(s set, windows []Window, old *found) {
	open := old.open(s.name)
	elements := prefixElements(s.elements, true)
	for _, w := range windows {
		f := familyOf(w.Source.Addr())
		if s.name == openSet(w.Door, f) && !open[w.Source.Addr()] {
			elements = append(elements, nftables.SetElement{Key: w.Source.Addr().AsSlice(), Timeout: w.Left})
		}
	}
	n := &nftables.Set{
		Table: b.table, Name: s.name, KeyType: s.family.kind, Size: s.size,
		Interval: s.elements != nil, HasTimeout: s.elements == nil,
		Dynamic: s.dynamic, Timeout: s.timeout,
	}
	switch {
	case old.sets[s.name] == nil:
		b.conn.AddSet(n, elements)
	case len(elements) > 0:
		b.conn.SetAddElements(n, elements)
	}
}

// lookup makes an anonymous set of the elements, and the expression that looks
// a key up in it.
func (b *batch) lookup(kind nftables.SetDatatype, interval bool, elements []nftables.SetElement) *expr.Lookup {
	s := &nftables.Set{Table: b.table, Anonymous: true, Constant: true, Interval: interval, KeyType: kind}
	b.conn.AddSet(s, elements)
	return &expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID}
}
