//go:build linux

package nft

import (
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/ruleset"
)

// A change by another process interrupts reading, and makes what was read before invalid.
// Reading then starts again, after pauses that grow, for at most patience.
const (
	patience   = 5 * time.Second
	firstPause = time.Millisecond
	maxPause   = 100 * time.Millisecond
)

// Install replaces the table of the same name, if there is one, in one transaction:
// packets meet either the old table or the new one, never none. The given windows are
// open in the new one. After an error nothing has changed.
//
// If the old table is a wall's that a daemon has made, its parts that are the same in the
// new one stay. The hooks stay, because the kernel drops all packets that wait in queues
// when a hook is removed. Sets of the same shape stay with their elements, so that
// windows keep their exact time. Windows of doors that are gone or changed are deleted, and
// those that the new table takes are opened in sets that are made anew. So the given windows
// are all that may be open in the old one; they are asked for only if there is such a door or
// set.
//
// A table that is not a wall's is left alone: the error is a [*TakenError]. If replaced names
// another table, it is deleted in the same transaction.
//
// If the kernel has table ownership, this connection owns the table, and nobody else can
// change it. The table stays when the owner has gone; that of a trial does not.
func (k *Kernel) Install(t *Table, windows iter.Seq[Window], replaced string) error {
	return k.put(t, windows, replaced, true)
}

// Restore replaces whatever table has that name, in one transaction, and keeps nothing of
// it.
func (k *Kernel) Restore(t *Table, windows iter.Seq[Window]) error {
	return k.put(t, windows, "", false)
}

func (k *Kernel) put(t *Table, windows iter.Seq[Window], replaced string, keep bool) error {
	all := t.contents()
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.unhindered(func() error { return k.tryPut(t, all, windows, replaced, keep) })
	k.owned, k.outline = nil, nil
	told := !errors.Is(err, unix.ENOBUFS)
	if !told {
		// Only the answer was lost. The transaction may have succeeded. But not all of each rule
		// is compared, so the next installation does not rely on an outline.
		if intact, readErr := k.intact(t); readErr == nil && intact {
			err = nil
		}
	}
	if err != nil {
		return k.explain(t.Name, fmt.Errorf("installing table inet %s: %w", t.Name, err))
	}
	if k.features.Ownership && told {
		k.owned, k.outline = t, all.outline
	}
	return nil
}

// unhindered repeats do until no other process's change interrupts it.
func (k *Kernel) unhindered(do func() error) error {
	end := time.Now().Add(patience)
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		err := do()
		hindered := errors.Is(err, unix.ERESTART) || errors.Is(err, unix.EINTR)
		if !hindered {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("other processes have changed the firewall's rules without a pause for %s: %w", patience, err)
		}
		time.Sleep(rand.N(pause))
	}
}

// reading calls read until no other process's change interrupts it, see [Whole]. Nothing is
// locked during the pauses, so that windows open meanwhile.
func (k *Kernel) reading(read func() error) error {
	return k.unhindered(func() error {
		k.mu.Lock()
		defer k.mu.Unlock()
		return Whole(k.conn, read)
	})
}

// tryPut sends the transaction once.
func (k *Kernel) tryPut(t *Table, all *contents, windows iter.Seq[Window], replaced string, keep bool) error {
	if replaced == t.Name {
		replaced = ""
	}
	// If anything changes after the old table was read, the transaction fails. Nobody
	// else can change a table that this connection owns, so its content is known.
	var generation uint32
	var old *found
	var same map[string]bool
	if k.owned != nil && k.owned.Name == t.Name {
		old = k.outline.found(k.flags(k.owned), k.features)
		same = all.outline.sameChains(k.outline)
		maps.Copy(old.timeouts, k.timeouts)
	} else {
		gen, err := k.conn.GetGen()
		if err != nil {
			return err
		}
		generation = gen.ID
		if old, err = k.find(t.Name); err != nil {
			return err
		}
		if keep && old.isWall() && old.original {
			if err := k.spoil(t.Name, old, generation); err != nil {
				return err
			}
		}
	}
	table := tableNamed(t.Name)
	table.Flags = k.flags(t)
	b := &batch{conn: k.conn, table: table, features: k.features, outline: all.outline, same: same}
	switch {
	case old == nil:
	case keep && !old.isWall() && !old.isEmpty(), replaced != "":
		return &TakenError{t.Name}
	case keep && old.isWall() && old.original && old.keeps(table.Flags):
		k.conn.AddTable(table) // to own it again
		b.clear(old)
		k.timeouts = maps.Clone(old.timeouts)
		b.add(all, windows, old)
		err := k.conn.FlushWithGenID(generation)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		// A map names a chain that was to be deleted: one that another process has added
		// or, on some kernels before 6.4, one that the transaction itself deletes.
	}
	if old != nil {
		k.conn.DelTable(table)
	}
	k.timeouts = nil
	b.same = nil
	k.conn.AddTable(table)
	b.add(all, windows, &found{})
	if replaced != "" {
		k.conn.DelTable(tableNamed(replaced))
	}
	return k.conn.FlushWithGenID(generation)
}

// TakenError says that a table of that name exists and is not the wall's, so that it is
// not replaced.
type TakenError struct{ Table string }

func (e *TakenError) Error() string {
	return fmt.Sprintf("there already is a table inet %s that is not this wall's: "+
		"give table another name in the rule files", e.Table)
}

// outline is all that counts of a table's contents when another one replaces it.
type outline struct {
	doors    map[uint32]standingDoor
	counters map[string]bool
	timeouts []timeout
	shapes   map[string]shape  // of the sets
	rules    map[string]int    // number of rules, by chain
	digests  map[string]uint64 // of the text of these rules
}

// digestSeed makes digests of the text of rules.
var digestSeed = maphash.MakeSeed()

func outlineOf(t *contents) *outline {
	o := &outline{
		doors: t.doors, counters: map[string]bool{}, timeouts: t.timeouts,
		shapes: map[string]shape{}, rules: map[string]int{}, digests: map[string]uint64{},
	}
	for _, name := range t.counters {
		o.counters[name] = true
	}
	for _, s := range t.sets {
		o.shapes[s.name] = s.shape()
	}
	var digest maphash.Hash
	digest.SetSeed(digestSeed)
	for _, c := range t.chains {
		digest.Reset()
		for _, r := range c.rules {
			for _, t := range r {
				digest.WriteString(t.text)
				digest.WriteByte(' ')
			}
			digest.WriteByte('\n')
		}
		o.rules[c.name], o.digests[c.name] = len(c.rules), digest.Sum64()
	}
	return o
}

// found returns what is found of a table with this outline that was installed with these
// flags. The elements of its sets are not known.
func (o *outline) found(flags nftables.TableFlags, features Features) *found {
	f := &found{
		flags: flags, hooked: true, marked: true, original: true,
		rules: o.rules, shapes: maps.Clone(o.shapes), counters: o.counters, timeouts: map[string]bool{},
		doors: o.doors,
	}
	if features.UDPTimeout {
		for _, o := range o.timeouts {
			f.timeouts[o.name()] = true
		}
	}
	return f
}

// sameChains returns the chains that the former table has with the same rules and, in all
// its chains, with sets that stay.
func (o *outline) sameChains(former *outline) map[string]bool {
	for name, s := range former.shapes {
		if o.shapes[name] != s {
			return nil
		}
	}
	same := map[string]bool{}
	for name, digest := range o.digests {
		was, ok := former.digests[name]
		same[name] = ok && was == digest
	}
	return same
}

// flags returns the flags of the installed table.
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
	k.owned, k.outline = nil, nil
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

// batch is a transaction that builds a table.
type batch struct {
	conn     *nftables.Conn
	table    *nftables.Table
	features Features
	outline  *outline        // of the new table
	same     map[string]bool // chains that the installed table has with the same rules
}

// clear deletes from an installed table all rules of chains that are not the same, and what
// the new table does not have. What is left in old stays.
func (b *batch) clear(old *found) {
	if len(b.same) == 0 {
		b.conn.FlushTable(b.table)
	}
	for name := range old.rules {
		if len(b.same) > 0 && !b.same[name] {
			b.conn.FlushChain(&nftables.Chain{Name: name, Table: b.table})
		}
	}
	for name := range old.rules {
		if _, ok := b.outline.rules[name]; !ok {
			b.conn.DelChain(&nftables.Chain{Name: name, Table: b.table})
		}
	}
	for name, shape := range old.shapes {
		switch {
		case b.outline.shapes[name] != shape:
			b.conn.DelSet(&nftables.Set{Name: name, Table: b.table})
			delete(old.shapes, name)
		case shape.constant:
			b.conn.FlushSet(&nftables.Set{Name: name, Table: b.table})
		}
	}
	for name := range old.counters {
		if !b.outline.counters[name] {
			b.conn.DeleteObject(&nftables.CounterObj{Table: b.table, Name: name})
		}
	}
}

// add adds to the transaction all of t that is not there yet. Errors in building it
// surface when it is sent.
func (b *batch) add(t *contents, windows iter.Seq[Window], old *found) {
	for _, name := range t.counters {
		if !old.counters[name] {
			b.conn.AddObj(&nftables.CounterObj{Table: b.table, Name: name})
		}
	}
	for _, o := range t.timeouts {
		if b.features.UDPTimeout && !old.timeouts[o.name()] {
			addTimeout(b.conn, o.object(b.table))
		}
	}
	changes := changesOf(t, windows, old)
	for _, s := range t.sets {
		b.addSet(s, changes[s.name], old)
	}
	chains := make([]*nftables.Chain, len(t.chains))
	for i, c := range t.chains {
		chains[i] = &nftables.Chain{Name: c.name, Table: b.table}
		if _, ok := old.rules[c.name]; ok {
			continue
		}
		if h, ok := hookOf(c.name); ok {
			policy := nftables.ChainPolicyAccept
			chains[i].Type = nftables.ChainTypeFilter
			chains[i].Hooknum = h.number
			chains[i].Priority = h.priority
			chains[i].Policy = &policy
		}
		b.conn.AddChain(chains[i])
	}
	for i, c := range t.chains {
		if b.same[c.name] {
			continue
		}
		for _, r := range c.rules {
			b.addRule(chains[i], r)
		}
	}
}

func (b *batch) addRule(c *nftables.Chain, r rule) {
	made := &nftables.Rule{Table: b.table, Chain: c}
	for _, t := range r {
		made.Exprs = append(made.Exprs, t.exprs(b)...)
		made.UserData = append(made.UserData, t.userData...)
	}
	b.conn.AddRule(made)
}

// changesOf returns which windows have to be deleted from sets that stay, and opened in sets of
// a new table, by set. A set that stays still has the windows of the doors that are the same,
// each with the time it has left. If all windows stay, it does not ask for them.
func changesOf(t *contents, windows iter.Seq[Window], old *found) map[string]*windowChange {
	changes := map[string]*windowChange{}
	made := false
	for _, f := range families {
		_, stays := old.shapes[openSet(f)]
		made = made || !stays
		changes[openSet(f)] = &windowChange{}
	}
	if windows == nil || !made && old.keepsAllWindows(t) {
		return changes
	}
	for w := range windows {
		f := familyOf(w.Source)
		_, stays := old.shapes[openSet(f)]
		if stays && old.keepsWindow(t, w) {
			continue
		}
		c, key := changes[openSet(f)], f.keyAt(w.Door, w.Source)
		if stays {
			c.passing = append(c.passing, passing(key))
		}
		// The kernel counts in milliseconds, and takes 0 for no timeout at all.
		if t.hasSource(w) && w.Left >= time.Millisecond {
			c.elements = append(c.elements, nftables.SetElement{Key: key, Timeout: w.Left, Comment: w.Opener.Text()})
		}
	}
	return changes
}

// hasSource reports whether a window is of a door of the table, and of what that takes for one
// source.
func (t *contents) hasSource(w Window) bool {
	d, ok := t.doors[ruleset.DoorNumber(w.Door)]
	return ok && d.name == w.Door && d.bits[familyOf(w.Source).suffix] == w.Source.Bits()
}

// addSet adds a set with its elements: those of the table, or the windows that are open
// in it.
func (b *batch) addSet(s set, windows *windowChange, old *found) {
	_, stays := old.shapes[s.name]
	elements := s.contents()
	if windows != nil {
		if len(windows.passing) > 0 {
			// One that has expired meanwhile cannot be deleted.
			b.conn.SetAddElements(b.named(s), windows.passing)
			b.conn.SetDeleteElements(b.named(s), windows.passing)
		}
		elements = append(elements, windows.elements...)
	}
	switch {
	case !stays:
		b.conn.AddSet(b.named(s), elements)
	case len(elements) > 0:
		b.conn.SetAddElements(b.named(s), elements)
	}
}

// keepsWindow reports whether a table that replaces the found one keeps a window in its sets:
// the door and what it takes for one source are the same in both.
func (f *found) keepsWindow(t *contents, w Window) bool {
	number := ruleset.DoorNumber(w.Door)
	d, ok := f.doors[number]
	return ok && keepsWindows(t.doors, number, d)
}

// keepsAllWindows reports the same for all windows.
func (f *found) keepsAllWindows(t *contents) bool {
	for number, d := range f.doors {
		if !keepsWindows(t.doors, number, d) {
			return false
		}
	}
	return true
}

func (b *batch) named(s set) *nftables.Set {
	return &nftables.Set{
		Table: b.table, Name: s.name, KeyType: s.kind, Size: s.size,
		HasTimeout: !s.constant, Dynamic: s.dynamic, Timeout: s.timeout,
	}
}

func (s set) contents() (elements []nftables.SetElement) {
	for _, e := range s.elements {
		elements = append(elements, nftables.SetElement{Key: e.key})
	}
	return elements
}

// lookup makes an anonymous hash set of the elements, and returns the expression that
// looks a key up in it.
func (b *batch) lookup(kind nftables.SetDatatype, elements []nftables.SetElement) *expr.Lookup {
	s := &nftables.Set{Table: b.table, Anonymous: true, Constant: true, KeyType: kind}
	b.conn.AddSet(s, elements)
	return &expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID}
}
