package ruleset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/packet"
)

// Standing is a table that was found in the kernel.
type Standing struct {
	Table   string
	Windows []Window
	Groups  []uint16 // NFLOG groups that its rules name
	Queues  []uint16 // queues that its rules name
}

// Names reports whether the table's rules name the group or a queue of n.
func (s *Standing) Names(n Numbers) bool {
	return slices.Contains(s.Groups, n.LogGroup) ||
		slices.Contains(s.Queues, n.Admitted) || slices.Contains(s.Queues, n.Strangers)
}

// Standing reads the wall's table of that name: its windows, and which numbers
// its rules use. It returns nil if there is no such table.
func (k *Kernel) Standing(name string) (*Standing, error) {
	all, err := k.walls(func(t string) bool { return t == name })
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return all[0], nil
}

// Others reads the tables of walls that have another name.
func (k *Kernel) Others(name string) ([]*Standing, error) {
	return k.walls(func(t string) bool { return t != name })
}

// walls reads the walls' tables whose name is wanted. A wall's table is known
// by its chains; what else there is may be large, and is left alone.
func (k *Kernel) walls(wanted func(name string) bool) (all []*Standing, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	err = k.unhindered(func() error {
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
			if f != nil {
				all = append(all, &Standing{c.Table.Name, f.windows, f.groups, f.queues})
			}
		}
		return nil
	})
	return all, err
}

// Intact reports whether a table stands as it was installed, as far as its parts
// tell by their names and numbers.
func (k *Kernel) Intact(t *Table) (intact bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	err = k.unhindered(func() error {
		intact, err = k.intact(t)
		return err
	})
	return intact, err
}

func (k *Kernel) intact(t *Table) (bool, error) {
	f, err := k.find(t.Name)
	if err != nil || !f.keeps(k.flags(t)) {
		return false, err
	}
	for _, c := range t.chains {
		if f.rules[c.name] != len(c.rules) {
			return false, nil
		}
	}
	for _, s := range t.sets {
		if f.sets[s.name] == nil {
			return false, nil
		}
	}
	standing := Standing{Groups: f.groups, Queues: f.queues}
	// One without doors names no numbers.
	return len(f.chains) == len(t.chains) && (len(f.queues) == 0 || standing.Names(t.numbers)), nil
}

// found is a table in the kernel with all that is in it.
type found struct {
	flags    nftables.TableFlags
	chains   []*nftables.Chain
	rules    map[string]int // how many, by chain
	sets     map[string]*nftables.Set
	counters map[string]bool
	lookedUp map[string]int // by set: how many leading bits of an address
	groups   []uint16
	queues   []uint16
	windows  []Window
}

// find reads a table. It returns nil if there is none of that name.
func (k *Kernel) find(name string) (*found, error) {
	table, err := k.conn.ListTableOfFamily(name, nftables.TableFamilyINet)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading table inet %s: %w", name, err)
	}
	f := &found{
		flags: table.Flags, rules: map[string]int{}, sets: map[string]*nftables.Set{},
		counters: map[string]bool{}, lookedUp: map[string]int{},
	}
	chains, err := k.conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("listing chains: %w", err)
	}
	for _, c := range chains {
		if c.Table.Name != name {
			continue
		}
		rules, err := k.conn.GetRules(table, c)
		if err != nil {
			return nil, fmt.Errorf("reading the rules of table inet %s: %w", name, err)
		}
		f.chains = append(f.chains, c)
		f.rules[c.Name] = len(rules)
		for _, r := range rules {
			f.note(r.Exprs)
		}
	}
	objects, err := k.conn.GetObjects(table)
	if err != nil {
		return nil, fmt.Errorf("reading the counters of table inet %s: %w", name, err)
	}
	for _, o := range objects {
		if c, ok := o.(*nftables.CounterObj); ok {
			f.counters[c.Name] = true
		}
	}
	sets, err := k.conn.GetSets(table)
	if err != nil {
		return nil, fmt.Errorf("reading the sets of table inet %s: %w", name, err)
	}
	for _, s := range sets {
		f.sets[s.Name] = s
		if err := k.readWindows(f, s); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// note collects the groups and queues that a rule names, and by how many leading
// bits it looks sources up.
func (f *found) note(exprs []expr.Any) {
	mask := 0 // leading bits of the value that was loaded last
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Payload:
			mask = int(e.Len) * 8
		case *expr.Bitwise:
			mask = leadingOnes(e.Mask)
		case *expr.Lookup:
			f.lookedUp[e.SetName] = mask
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

// readWindows reads the windows that a set holds. How long their sources'
// prefixes are is not in the elements, but in the rules that look them up.
func (k *Kernel) readWindows(f *found, s *nftables.Set) error {
	door, family, ok := doorOfSet(s.Name)
	length, known := f.lookedUp[s.Name]
	if !ok || !known || !s.HasTimeout || int(s.KeyType.Bytes) != family.length {
		return nil
	}
	elements, err := k.conn.GetSetElements(s)
	if err != nil {
		return fmt.Errorf("reading the windows of the door %s: %w", door, err)
	}
	for _, e := range elements {
		if addr, ok := netip.AddrFromSlice(e.Key); ok && e.Expires > 0 {
			f.windows = append(f.windows, Window{door, packet.Source{Prefix: netip.PrefixFrom(addr, length)}, e.Expires})
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

// keeps reports whether the table can get other contents without being deleted:
// it hooks in where the wall does and nowhere else, and has the flags, or can be
// given them. An owner can be had by a table that has lost its own, and one
// that stays cannot be made of one that does not.
func (f *found) keeps(flags nftables.TableFlags) bool {
	orphan := nftables.TableFlagPersist
	if f == nil || f.flags != flags && (f.flags != orphan || flags != orphan|nftables.TableFlagOwner) {
		return false
	}
	hooked := false
	for _, c := range f.chains {
		if c.Hooknum == nil {
			continue
		}
		if c.Name != baseChain || c.Type != nftables.ChainTypeFilter || *c.Hooknum != *nftables.ChainHookPrerouting ||
			c.Priority == nil || *c.Priority != *nftables.ChainPriorityMangle ||
			c.Policy == nil || *c.Policy != nftables.ChainPolicyAccept {
			return false
		}
		hooked = true
	}
	return hooked
}

func (f *found) chain(name string) *nftables.Chain {
	for _, c := range f.chains {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// open returns the sources whose window a set holds.
func (f *found) open(set string) map[netip.Addr]bool {
	open := map[netip.Addr]bool{}
	for _, w := range f.windows {
		if openSet(w.Door, familyOf(w.Source.Addr())) == set {
			open[w.Source.Addr()] = true
		}
	}
	return open
}
