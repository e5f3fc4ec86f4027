package doctor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/knockwall/knockwall/ruleset"
)

// device is a network interface. The interface by which a packet comes in is the one
// whose name rules in prerouting see.
type device struct {
	name      string
	kind      string   // as `ip -d link` shows it: "bridge", "vlan"; "device" for hardware
	others    []string // altnames, which rules do not match
	index     int
	master    int  // index of the device that it is a port of, or 0
	parent    int  // index of the device that it is built on, or 0
	passthru  bool // it takes all packets of its parent
	addressed bool // it has an address that is not link-local
}

// findInterfaces finds doors that name interfaces by which no packets come in.
func findInterfaces(h *Host) (findings []Finding, err error) {
	var all []device
	found := map[string][]Finding{} // by interfaces, as most doors have those of the wall
	for _, d := range h.Config.Doors {
		if len(d.Interfaces) == 0 {
			continue
		}
		if all == nil {
			if all, err = devices(); err != nil {
				return nil, err
			}
		}
		key := strings.Join(d.Interfaces, "/") // no interface name has a slash
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

// devices lists the interfaces except lo.
func devices() ([]device, error) {
	links, err := linkList()
	if err != nil {
		return nil, fmt.Errorf("listing the interfaces: %w", err)
	}
	addresses, err := wholeDump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("listing the addresses: %w", err)
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
		if a.NetNsID < 0 { // otherwise the parent is in another network namespace
			d.parent = a.ParentIndex
		}
		if m, ok := l.(*netlink.Macvlan); ok {
			d.passthru = m.Mode == netlink.MACVLAN_MODE_PASSTHRU
		}
		all = append(all, d)
	}
	return all, nil
}

// judgeAll checks the interfaces that a door names.
func judgeAll(named []string, all []device) (findings []Finding) {
	stands := false     // the door guards at least one interface
	var byPattern []int // indexes of findings about patterns
	for _, pattern := range named {
		fits := false
		told := map[string]bool{} // cures, because a pattern may match all ports of a bridge
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
			findings[i].Severity = Warning // the administrator may mean the other matches
		}
	}
	return findings
}

// ports are the kinds of masters whose ports pass on all packets, as if they had come in
// by the master.
var ports = map[string]string{
	"bridge": "a port of the bridge", "bond": "a part of the bond", "team": "a port of the team",
	"openvswitch": "a port of the Open vSwitch", "failover": "a part of the failover device",
}

// empty are the kinds of interfaces by which no packet comes in.
var empty = map[string]string{
	"dummy": "Packets to its addresses come in by other interfaces.",
	"ifb":   "Packets that are redirected to it come in by their original interface.",
}

// upper are the kinds of interfaces that take a part of their parent's packets.
var upper = map[string]string{"vlan": "the VLAN", "macvlan": "the macvlan", "ipvlan": "the ipvlan", "macsec": "the MACsec device"}

// judge checks an interface that a door names, and reports whether the door guards it.
func judge(dev *device, named []string, all []device) (f *Finding, stands bool) {
	covered := func(other device) bool {
		return slices.ContainsFunc(named, func(p string) bool { return ruleset.FitsInterface(p, other.name) })
	}
	wrong := func(cure, format string, a ...any) *Finding {
		return &Finding{Severity: Error, Problem: fmt.Sprintf(format, a...), Cure: cure}
	}
	if why, ok := empty[dev.kind]; ok {
		return wrong("Write the interface by which packets come in, or leave interfaces out to guard all of them.",
			"Nothing comes in by %q, because its kind is %s. %s", dev.name, dev.kind, why), false
	}
	if dev.kind == "vrf" {
		inside := names(all, func(d device) bool { return d.master == dev.index })
		if slices.ContainsFunc(all, func(d device) bool { return d.master == dev.index && covered(d) }) {
			return nil, true
		}
		cure := "Write the interfaces that belong to it."
		if len(inside) > 0 {
			cure = fmt.Sprintf("Write %s.", list(inside))
		}
		return wrong(cure,
			"%q is a VRF. Knocks come in by the interfaces in it, so this door hears no knocks and stays shut.", dev.name), true
	}
	if master := masterOf(dev, all); master != nil {
		top := topOf(master, all)
		cure, inBy := fmt.Sprintf("Write %q.", top.name), strconv.Quote(top.name)
		if top.kind == "openvswitch" {
			inBy = "its internal ports"
			cure = "Write its internal ports that have addresses. `ip address` shows them."
		}
		if covered(*top) {
			return nil, false // the finding about the master decides
		}
		return wrong(cure, "%q is %s %q. Its packets come in by %s.", dev.name, ports[master.kind], master.name, inBy), false
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
		return wrong(instead, "%q passes all its packets to %s.", dev.name, above(uppers)), false
	case !dev.addressed && slices.ContainsFunc(uppers, func(d device) bool { return d.addressed }):
		return wrong(instead, "%q has no address. Packets to the addresses of %s come in by the latter.", dev.name, above(uppers)), false
	}
	f = wrong(fmt.Sprintf("To guard that as well, write %s.", list(append([]string{dev.name}, write...))),
		"The door guards %q, but not %s on top of it. Packets for the latter do not come in by %q.", dev.name, above(uppers), dev.name)
	f.Severity = Warning
	return f, true
}

// above names devices with their kinds.
func above(uppers []device) string {
	var all []string
	for _, d := range uppers {
		all = append(all, fmt.Sprintf("%s %q", upper[d.kind], d.name))
	}
	return and(all)
}

// masterOf returns the master of a device if the device passes all packets to it, or nil.
func masterOf(dev *device, all []device) *device {
	for i := range all {
		if m := &all[i]; dev.master == m.index && ports[m.kind] != "" {
			return m
		}
	}
	return nil
}

// topOf returns the device by which the packets of another device come in.
func topOf(dev *device, all []device) *device {
	for range all { // an upper limit; the kernel allows no loops
		m := masterOf(dev, all)
		if m == nil {
			break
		}
		dev = m
	}
	return dev
}

// missing returns the finding for a name that no interface matches.
func missing(pattern string, all []device) Finding {
	instead := func(name, format string, a ...any) Finding {
		return Finding{Severity: Error, Problem: fmt.Sprintf(format, a...), Cure: fmt.Sprintf("Write %q.", name)}
	}
	bare, _, _ := strings.Cut(pattern, "@") // `ip link` appends the parent
	for _, d := range all {
		for _, other := range d.others {
			if ruleset.FitsInterface(pattern, other) {
				return instead(d.name, "%q is an altname of %q. Rules match no altnames.", other, d.name)
			}
		}
		if strings.EqualFold(d.name, pattern) || d.name == bare {
			return instead(d.name, "There is no interface %q on this host, but there is one %q.", pattern, d.name)
		}
	}
	if begin, ok := strings.CutSuffix(pattern, "*"); ok {
		return Finding{Severity: Warning, Problem: fmt.Sprintf("There is no interface now that can be guarded and whose name begins with %q.", begin),
			Cure: "The door will guard each such interface from its first packet on. To guard others, write them as well."}
	}
	here := "Leave"
	if some := names(all, func(device) bool { return true }); len(some) > 0 {
		here = fmt.Sprintf("Write an existing interface (%s), or leave", list(some))
	}
	return Finding{Severity: Error, Problem: fmt.Sprintf("There is no interface %q on this host now.", pattern),
		Cure: here + " interfaces out to guard all of them. If the interface appears later, the door will guard it from its first packet on."}
}

// mostNames is the greatest number of interfaces in one list.
const mostNames = 8

func names(all []device, wanted func(device) bool) (some []string) {
	for _, d := range all {
		if wanted(d) {
			some = append(some, d.name)
		}
	}
	return some
}

// list writes names as in rule files.
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

// and joins words with commas and "and".
func and(words []string) string {
	words = words[:min(len(words), mostNames)]
	if n := len(words) - 1; n > 0 {
		return strings.Join(words[:n], ", ") + " and " + words[n]
	}
	return words[0]
}
