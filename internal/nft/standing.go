//go:build linux

package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/ruleset"
)

// Standing is a wall's table that was found in the kernel.
type Standing struct {
	Table string
	// Restored: the table was not made by a daemon, but loaded from a ruleset that was
	// saved while a wall stood. Its windows are meaningless.
	Restored bool
	// Owned: nobody but this connection can have changed the table since it has made it.
	Owned  bool
	Groups []uint16 // NFLOG groups in its rules
	Queues []uint16 // queues in its rules

	sets  []family // of which it has a set of windows
	doors map[uint32]standingDoor
}

// Names reports whether the table's rules name the group or a queue of n.
func (s *Standing) Names(n Numbers) bool {
	return slices.Contains(s.Groups, n.LogGroup) ||
		slices.Contains(s.Queues, n.Admitted) || slices.Contains(s.Queues, n.Strangers) || slices.Contains(s.Queues, n.Excess)
}

// Standing reads the wall's table of that name: the group and queue numbers in its rules. It
// returns nil if there is no such table.
func (k *Kernel) Standing(name string) (*Standing, error) {
	if s := k.standingOwned(name); s != nil {
		return s, nil
	}
	all, err := k.walls(func(t string) bool { return t == name })
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return all[0], nil
}

// standingOwned returns the table of that name if this connection owns it. Nobody else can
// change that table, so that all of it is known.
func (k *Kernel) standingOwned(name string) *Standing {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.owned == nil || k.owned.Name != name {
		return nil
	}
	n := k.owned.numbers
	return &Standing{Table: name, Owned: true, Groups: []uint16{n.LogGroup}, Queues: []uint16{n.Admitted, n.Strangers, n.Excess},
		sets: families, doors: k.outline.doors}
}

// Others reads the tables of walls that have another name.
func (k *Kernel) Others(name string) ([]*Standing, error) {
	return k.walls(func(t string) bool { return t != name })
}

// walls reads the walls' tables with wanted names. It leaves other tables alone, because
// they may be large.
func (k *Kernel) walls(wanted func(name string) bool) (all []*Standing, err error) {
	err = k.reading(func() error {
		all = nil
		chains, err := k.conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
		if err != nil {
			return fmt.Errorf("listing chains: %w", err)
		}
		for _, c := range chains {
			if c.Name != wallChain || !wanted(c.Table.Name) {
				continue
			}
			f, err := k.find(c.Table.Name)
			if err != nil {
				return err
			}
			if f.isWall() {
				all = append(all, &Standing{Table: c.Table.Name, Restored: !f.original, Groups: f.groups, Queues: f.queues, sets: f.sets, doors: f.doors})
			}
		}
		return nil
	})
	return all, err
}

// Intact reports whether a table is still as it was installed, judged by the names and
// numbers of its parts, and by what its doors take for one source.
func (k *Kernel) Intact(t *Table) (intact bool, err error) {
	err = k.unhindered(func() error {
		k.mu.Lock()
		defer k.mu.Unlock()
		err := Whole(k.conn, func() (err error) {
			intact, err = k.intact(t)
			return err
		})
		if intact {
			return nil // no change meanwhile can make it look so
		}
		return err
	})
	return intact, err
}

func (k *Kernel) intact(t *Table) (bool, error) {
	f, err := k.find(t.Name)
	if err != nil || f == nil {
		return false, err
	}
	generation, err := k.conn.GetGen()
	if err == nil {
		err = k.spoil(t.Name, f, generation.ID)
	}
	if err != nil {
		return false, err
	}
	want := t.contents().outline.found(k.flags(t), k.features)
	if !f.original || !f.keeps(want.flags) || !maps.Equal(f.rules, want.rules) || !maps.Equal(f.shapes, want.shapes) ||
		!maps.EqualFunc(f.doors, want.doors, standingDoor.isSame) {
		return false, nil
	}
	standing := Standing{Groups: f.groups, Queues: f.queues}
	// A wall without doors names no numbers.
	return len(f.queues) == 0 || standing.Names(t.numbers), nil
}

// found is a table in the kernel with its contents.
type found struct {
	flags    nftables.TableFlags
	hooked   bool           // it has all hooks of a wall, and no others
	rules    map[string]int // number of rules, by chain
	marked   bool           // its rules have a mark that only a wall's have
	original bool           // they also have the one that no saved ruleset has
	shapes   map[string]shape
	counters map[string]bool
	timeouts map[string]bool
	groups   []uint16
	queues   []uint16
	sets     []family // of which it has a set of windows
	doors    map[uint32]standingDoor

	lookedUp   map[string]int            // by set: how many leading bits of an address are looked up
	windowBits map[uint32]map[string]int // the same for windows, by the number of the door and the suffix of the family
}

// standingDoor is a door in whose rules windows are looked up.
type standingDoor struct {
	name string
	bits map[string]int // leading bits of an address that count, by the suffix of the family
}

// standingDoors returns the doors of a configuration by their numbers.
func standingDoors(c *effective.Config) map[uint32]standingDoor {
	doors := make(map[uint32]standingDoor, len(c.Doors))
	for d := range doorsOf(c) {
		bits := map[string]int{}
		for _, f := range families {
			bits[f.suffix] = d.source(f).bits
		}
		doors[ruleset.DoorNumber(d.Name)] = standingDoor{d.Name, bits}
	}
	return doors
}

// keepsWindows reports whether a table with these doors can keep the windows of a source of
// another door by that number.
func keepsWindows(doors map[uint32]standingDoor, number uint32, other standingDoor) bool {
	d, ok := doors[number]
	return ok && d.isSame(other)
}

func (d standingDoor) isSame(other standingDoor) bool {
	return d.name == other.name && maps.Equal(d.bits, other.bits)
}

// shape is all of a set but its elements. Two sets of the same shape can hold the same
// windows.
type shape struct {
	constant, dynamic bool
	length            int // length of a key in bytes
	bits              int // leading bits of an address that count
	size              uint32
	timeout           time.Duration
}

func (s set) shape() shape {
	if s.constant {
		return shape{constant: true, length: int(s.kind.Bytes), size: s.size}
	}
	return shape{dynamic: s.dynamic, length: int(s.kind.Bytes), bits: s.bits, size: s.size, timeout: s.timeout}
}

// isWall reports whether it is a wall's table. It may be one whose rules were flushed, or
// that another process has changed.
func (f *found) isWall() bool {
	if f == nil {
		return false
	}
	if _, ok := f.rules[wallChain]; !ok {
		return false
	}
	rules := 0
	door := false
	for chain, n := range f.rules {
		rules += n
		door = door || strings.HasSuffix(chain, refuseChain(""))
	}
	return f.marked || door || f.hooked && rules == 0
}

// isEmpty reports whether the table has no chains, sets or counters, so that it can be
// nobody's.
func (f *found) isEmpty() bool {
	return len(f.rules) == 0 && len(f.shapes) == 0 && len(f.counters) == 0
}

// keeps reports whether a wall's table can get other contents without being deleted: it
// has the flags, or can be given them. A table that has lost its owner can get a new one.
// A table that persists cannot be made from one that does not.
func (f *found) keeps(flags nftables.TableFlags) bool {
	orphan := nftables.TableFlagPersist
	return f.hooked && (f.flags == flags || f.flags == orphan && flags == orphan|nftables.TableFlagOwner)
}

// find reads a table. It returns nil if there is none of that name, and ERESTART if the
// table is deleted while it is read.
func (k *Kernel) find(name string) (*found, error) {
	f, err := k.read(name)
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("%w: %w", err, unix.ERESTART)
	}
	return f, err
}

func (k *Kernel) read(name string) (*found, error) {
	table, err := k.conn.ListTableOfFamily(name, nftables.TableFamilyINet)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading table inet %s: %w", name, err)
	}
	f := &found{
		flags: table.Flags, rules: map[string]int{}, shapes: map[string]shape{},
		counters: map[string]bool{}, timeouts: map[string]bool{}, lookedUp: map[string]int{},
		doors: map[uint32]standingDoor{}, windowBits: map[uint32]map[string]int{},
	}
	chains, err := k.conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("listing chains: %w", err)
	}
	found, hooked := 0, 0
	for _, c := range chains {
		if c.Table.Name != name {
			continue
		}
		if c.Hooknum != nil {
			found++
			if isHook(c) {
				hooked++
			}
		}
		rules, err := k.conn.GetRules(table, c)
		if err != nil {
			return nil, fmt.Errorf("reading the rules of table inet %s: %w", name, err)
		}
		f.rules[c.Name] = len(rules)
		if door, ok := strings.CutSuffix(c.Name, admitChain("")); ok {
			number := ruleset.DoorNumber(door)
			f.doors[number] = standingDoor{door, f.bitsOf(number)}
		}
		for _, r := range rules {
			f.note(r.Exprs)
			f.original = f.original || bytes.Equal(r.UserData, original)
		}
	}
	f.hooked = found == len(hooks) && hooked == len(hooks)
	objects, err := namedObjects(k.conn, table)
	if err != nil {
		return nil, fmt.Errorf("reading the objects of table inet %s: %w", name, err)
	}
	for _, o := range objects {
		switch o, _ := o.(*nftables.NamedObj); o.Type {
		case nftables.ObjTypeCounter:
			f.counters[o.Name] = true
		case nftables.ObjTypeCtTimeout:
			f.timeouts[o.Name] = true
		}
	}
	sets, err := k.conn.GetSets(table)
	if err != nil {
		return nil, fmt.Errorf("reading the sets of table inet %s: %w", name, err)
	}
	for _, s := range sets {
		if s.Anonymous {
			continue
		}
		f.shapes[s.Name] = f.shapeOf(s)
		if family, ok := familyOfWindows(s.Name); ok && s.HasTimeout && s.KeyType.Bytes == kindOf(family, true).Bytes {
			f.sets = append(f.sets, family)
		}
	}
	return f, nil
}

// isHook reports whether a chain is hooked in where the wall's chain of that name is.
func isHook(c *nftables.Chain) bool {
	h, ok := hookOf(c.Name)
	return ok && c.Type == nftables.ChainTypeFilter && *c.Hooknum == *h.number &&
		c.Priority != nil && *c.Priority == *h.priority &&
		c.Policy != nil && *c.Policy == nftables.ChainPolicyAccept
}

// shapeOf returns the shape of a set. How many bits of an address count is not in the
// set, but in the rules that look it up.
func (f *found) shapeOf(s *nftables.Set) shape {
	if !s.HasTimeout {
		return shape{constant: true, length: int(s.KeyType.Bytes), size: s.Size}
	}
	return shape{
		dynamic: s.Dynamic, length: int(s.KeyType.Bytes), bits: f.lookedUp[s.Name], size: s.Size, timeout: s.Timeout,
	}
}

// note collects from a rule the groups and queues that it names, the number of leading
// bits by which it looks sources up, and whether it has a wall's mark.
func (f *found) note(exprs []expr.Any) {
	mask := 0 // leading bits of the address loaded last
	var door []byte
	looksUp := func(set string) {
		if door == nil {
			f.lookedUp[set] = mask
		} else if family, ok := familyOfWindows(set); ok {
			f.bitsOf(binaryutil.NativeEndian.Uint32(door))[family.suffix] = mask
		}
	}
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Payload:
			if e.Base == expr.PayloadBaseNetworkHeader {
				mask, door = int(e.Len)*8, nil
			}
		case *expr.Bitwise:
			if bytes.Equal(e.Mask, allReplaced) && len(e.Xor) == len(allReplaced) {
				door = e.Xor
				continue
			}
			mask = leadingOnes(e.Mask)
			f.marked = f.marked || bytes.Equal(e.Mask, labelBits(EndedLabel))
		case *expr.Cmp:
			f.marked = f.marked || bytes.Equal(e.Data, refusedMark)
		case *expr.Lookup:
			looksUp(e.SetName)
		case *expr.Dynset:
			looksUp(e.SetName)
		case *expr.Log:
			f.groups = append(f.groups, e.Group)
		case *expr.Queue:
			f.queues = append(f.queues, e.Num)
		case *expr.Target:
			if info, ok := e.Info.(*xt.Unknown); ok && e.Name == "NFQUEUE" && len(*info) >= 2 {
				f.queues = append(f.queues, binary.NativeEndian.Uint16(*info))
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

// bitsOf returns how many leading bits of an address count at the door of that number, to
// be read and written.
func (f *found) bitsOf(number uint32) map[string]int {
	bits := f.windowBits[number]
	if bits == nil {
		bits = map[string]int{}
		f.windowBits[number] = bits
	}
	return bits
}

// familyOfWindows returns the family of the sources in a set of windows.
func familyOfWindows(set string) (family, bool) {
	i := slices.IndexFunc(families, func(f family) bool { return openSet(f) == set })
	if i < 0 {
		return family{}, false
	}
	return families[i], true
}
