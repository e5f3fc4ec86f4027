package doctor

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/knockwall/knockwall/ruleset"
)

// device is an interface of this host, as far as it matters by which one packets come
// in: the one whose name rules see in prerouting.
type device struct {
	name      string
	kind      string   // as `ip -d link` has it: "bridge", "vlan"; "device" for hardware
	others    []string // altnames, which rules do not see
	index     int
	master    int  // index of the device that it is a port of, or 0
	parent    int  // index of the device that it lies on, or 0
	passthru  bool // it takes all that comes to its parent
	addressed bool // it has an address that is more than link-local
}

// findInterfaces finds doors whose interfaces are not those that packets come in by.
func findInterfaces(h *Host) (findings []Finding, err error) {
	var all []device
	found := map[string][]Finding{} // by interfaces, as most doors have the wall's
	for _, d := range h.Config.Doors {
		if len(d.Interfaces) == 0 {
			continue
		}
		if all == nil {
			if all, err = devices(); err != nil {
				return nil, err
			}
		}
		key := strings.Join(d.Interfaces, "/") // which no name has
		if _, ok := found[key]; !ok {
			found[key] = judgeAll(d.Interfaces, all)
		}
		for _, f := range found[key] {
			f.Door = d.Name
			findings = append(findings, f)
		}
	}
	return findings, nil
}

// devices asks the kernel for all but loopback.
func devices() ([]device, error) {
	links, err := netlink.LinkList()
	for tries := 3; tries > 1 && errors.Is(err, netlink.ErrDumpInterrupted); tries-- { // some came or went meanwhile
		links, err = netlink.LinkList()
	}
	if err != nil {
		return nil, fmt.Errorf("asking the kernel for the interfaces: %w", err)
	}
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("asking the kernel for the addresses: %w", err)
	}
	var all []device
	for _, l := range links {
		a := l.Attrs()
		if a.Name == "lo" {
			continue
		}
		d := device{name: a.Name, kind: l.Type(), others: a.AltNames, index: a.Index, master: a.MasterIndex,
			addressed: slices.ContainsFunc(addresses, func(x netlink.Addr) bool {
				return x.LinkIndex == a.Index && !x.IP.IsLinkLocalUnicast()
			})}
		if a.NetNsID < 0 { // else it lies on one of another network namespace
			d.parent = a.ParentIndex
		}
		if m, ok := l.(*netlink.Macvlan); ok {
			d.passthru = m.Mode == netlink.MACVLAN_MODE_PASSTHRU
		}
		all = append(all, d)
	}
	return all, nil
}

// judgeAll judges the interfaces that a door names.
func judgeAll(named []string, all []device) (findings []Finding) {
	stands := false     // somewhere
	var byPattern []int // of the findings
	for _, pattern := range named {
		fits := false
		told := map[string]bool{} // cures, as a pattern may fit all ports of a bridge
		for i := range all {
			if !ruleset.FitsInterface(pattern, all[i].name) {
				continue
			}
			fits = true
			f, takes := judge(&all[i], named, all)
			stands = stands || takes
			if f == nil || told[f.Cure] {
				continue
			}
			told[f.Cure] = true
			if strings.HasSuffix(pattern, "*") {
				byPattern = append(byPattern, len(findings))
			}
			findings = append(findings, *f)
		}
		if !fits {
			findings = append(findings, missing(pattern, all))
		}
	}
	for i := range findings {
		findings[i].Bare = !stands
		if stands && slices.Contains(byPattern, i) {
			findings[i].Severity = Warning // what else it fits may be what is meant
		}
	}
	return findings
}

// ports are the masters whose ports hand on what they take in, as if it came in by
// the master.
var ports = map[string]string{
	"bridge": "a port of the bridge", "bond": "a part of the bond", "team": "a port of the team",
	"openvswitch": "a port of the Open vSwitch", "failover": "a part of the failover device",
}

// empty are the kinds by which nothing ever comes in.
var empty = map[string]string{
	"dummy": "What is sent to its addresses comes in by other interfaces.",
	"ifb":   "What is redirected to it comes in by the interface that it came from.",
}

// upper are the kinds that take their share of what comes in by their parent.
var upper = map[string]string{"vlan": "the VLAN", "macvlan": "the macvlan", "ipvlan": "the ipvlan", "macsec": "the MACsec device"}

// judge says what is wrong with an interface that is named, if anything is, and whether
// the door stands before it.
func judge(dev *device, named []string, all []device) (f *Finding, stands bool) {
	covered := func(other device) bool {
		return slices.ContainsFunc(named, func(p string) bool { return ruleset.FitsInterface(p, other.name) })
	}
	wrong := func(cure, format string, a ...any) *Finding {
		return &Finding{Severity: Error, Problem: fmt.Sprintf(format, a...), Cure: cure}
	}
	if why, ok := empty[dev.kind]; ok {
		return wrong("Write the interface that packets come in by, or leave interfaces out to guard all of them.",
			"Nothing comes in by %q, as it is of the kind %s. %s", dev.name, dev.kind, why), false
	}
	if dev.kind == "vrf" {
		inside := names(all, func(d device) bool { return d.master == dev.index })
		if slices.ContainsFunc(all, func(d device) bool { return d.master == dev.index && covered(d) }) {
			return nil, true
		}
		cure := "Write the interfaces that are put into it."
		if len(inside) > 0 {
			cure = fmt.Sprintf("Write %s.", list(inside))
		}
		return wrong(cure,
			"%q is a VRF: a door hears knocks by the interfaces that are in it, so nobody can knock here, and the door stays shut.", dev.name), true
	}
	if master := masterOf(dev, all); master != nil {
		top := topOf(master, all)
		cure, inBy := fmt.Sprintf("Write %q.", top.name), strconv.Quote(top.name)
		if top.kind == "openvswitch" {
			inBy = "its internal ports"
			cure = "Write those of its internal ports that have addresses, as `ip address` shows them."
		}
		if covered(*top) {
			return nil, false // by which the door is judged
		}
		return wrong(cure, "%q is %s %q, and what it takes in comes in by %s.", dev.name, ports[master.kind], master.name, inBy), false
	}
	var uppers []device
	for _, d := range all {
		if upper[d.kind] != "" && d.parent == dev.index && !covered(d) {
			uppers = append(uppers, d)
		}
	}
	if len(uppers) == 0 {
		return nil, true
	}
	write := names(uppers, func(device) bool { return true })
	instead := fmt.Sprintf("Write %s.", list(write))
	switch {
	case slices.ContainsFunc(uppers, func(d device) bool { return d.passthru }):
		return wrong(instead, "%q hands all that it takes in to %s.", dev.name, above(uppers)), false
	case !dev.addressed && slices.ContainsFunc(uppers, func(d device) bool { return d.addressed }):
		return wrong(instead, "%q has no address, and what is sent to those of %s comes in by that.", dev.name, above(uppers)), false
	}
	f = wrong(fmt.Sprintf("If the door is to stand there as well, write %s.", list(append([]string{dev.name}, write...))),
		"The door stands before %q, and not before %s, which lies on it: what is meant for that does not come in by %q.", dev.name, above(uppers), dev.name)
	f.Severity = Warning
	return f, true
}

// above names the devices that lie on another.
func above(uppers []device) string {
	var all []string
	for _, d := range uppers {
		all = append(all, fmt.Sprintf("%s %q", upper[d.kind], d.name))
	}
	return and(all)
}

// masterOf returns the device whose port another is, if that hands on what it takes in.
func masterOf(dev *device, all []device) *device {
	for i := range all {
		if m := &all[i]; dev.master == m.index && ports[m.kind] != "" {
			return m
		}
	}
	return nil
}

// topOf returns the device by which packets come in that another takes in.
func topOf(dev *device, all []device) *device {
	for range all { // the kernel has no circles of them
		m := masterOf(dev, all)
		if m == nil {
			break
		}
		dev = m
	}
	return dev
}

// missing says that nothing on this host has such a name.
func missing(pattern string, all []device) Finding {
	instead := func(name, format string, a ...any) Finding {
		return Finding{Severity: Error, Problem: fmt.Sprintf(format, a...), Cure: fmt.Sprintf("Write %q.", name)}
	}
	bare, _, _ := strings.Cut(pattern, "@") // as `ip link` shows what lies on another
	for _, d := range all {
		for _, other := range d.others {
			if ruleset.FitsInterface(pattern, other) {
				return instead(d.name, "%q is an altname of %q, and rules see no altnames.", other, d.name)
			}
		}
		if strings.EqualFold(d.name, pattern) || d.name == bare {
			return instead(d.name, "There is no interface %q on this host, but one %q.", pattern, d.name)
		}
	}
	if begin, ok := strings.CutSuffix(pattern, "*"); ok {
		return Finding{Severity: Warning, Problem: fmt.Sprintf("No interface that can be guarded has a name now that begins with %q.", begin),
			Cure: "The door will stand before each that comes, from its first packet on. If others are to be guarded, name them, too."}
	}
	here := "Leave"
	if some := names(all, func(device) bool { return true }); len(some) > 0 {
		here = fmt.Sprintf("Write one that there is (%s), or leave", list(some))
	}
	return Finding{Severity: Error, Problem: fmt.Sprintf("There is no interface %q on this host now.", pattern),
		Cure: here + " interfaces out to guard all of them. If it is still to come, the door will stand there from its first packet on."}
}

// mostNames is how many interfaces are named in a row.
const mostNames = 8

func names(all []device, wanted func(device) bool) (some []string) {
	for _, d := range all {
		if wanted(d) {
			some = append(some, d.name)
		}
	}
	return some
}

// list writes names as rule files have them.
func list(names []string) string {
	var all []string
	for _, n := range names[:min(len(names), mostNames)] {
		all = append(all, fmt.Sprintf("%q", n))
	}
	if len(names) > mostNames {
		all = append(all, "…")
	}
	return strings.Join(all, ", ")
}

// and joins what is told in a row.
func and(words []string) string {
	words = words[:min(len(words), mostNames)]
	if n := len(words) - 1; n > 0 {
		return strings.Join(words[:n], ", ") + " and " + words[n]
	}
	return words[0]
}
