//go:build linux

package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"

	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// The rates at which the kernel hands packets on, for each door and protocol or
// IP version, in packets a second: the daemon's work is bounded by them, whatever
// comes. What strangers send above theirs is refused unheard. Those who have knocked
// have a rate of their own, so that nobody crowds them out who does not know a knock.
// In the default hold time about 400 packets of those who do not can wait at one door:
// the queue has room for 40 such floods.
//
// What is above the rate of knocks is not heard, whoever it is from. So it is about as
// high as what one CPU can read, and more than most networks bring. What may be a
// one-time password costs the daemon a hash for each that it could be, so that is what
// their rate is of: a fifth of what a CPU can compute, or all of it if it has no
// instructions for that. The rate of guests is beyond what any honest crowd sends.
const (
	knocksRate     = 500000
	knocksBurst    = 50000
	hashesRate     = 1000000
	datagramsBurst = 5000
	admittedRate   = 20000
	admittedBurst  = 5000
	knockingRate   = 5000
	knockingBurst  = 1000
	strangersRate  = 1000
	strangersBurst = 200
	noticesRate    = 100
	noticesBurst   = 100
	trapsRate      = 1000
	trapsBurst     = 1000
)

// MaxWindows is how many windows of one door and IP version the kernel holds.
const MaxWindows = 65536

// Numbers are the NFLOG group and the queues that a table names.
type Numbers struct {
	LogGroup  uint16
	Admitted  uint16 // queue of sources with an open window
	Strangers uint16 // queue of everybody else
	Excess    uint16 // queue of those strangers who are too many to be asked about
}

// NumbersOf returns those of a bank, 0 or 1. The turns have nothing in common, so
// that a daemon can bind those of one while the rules name those of the other.
func NumbersOf(w *ruleset.Wall, bank int) Numbers {
	return Numbers{
		LogGroup:  w.LogGroup + uint16(bank),
		Admitted:  w.Queue + uint16(2*bank),
		Strangers: w.Queue + uint16(2*bank) + 1,
		Excess:    w.Queue + 4 + uint16(bank),
	}
}

// Table is an nftables table of the family inet, ready to be installed or
// printed.
type Table struct {
	Name string
	// Trial: the table goes when the daemon does, however that ends, where the
	// kernel can see to it.
	Trial    bool
	numbers  Numbers
	counters []string
	timeouts []timeout
	sets     []set
	chains   []chain
}

type set struct {
	name     string
	kind     nftables.SetDatatype
	size     uint32
	bits     int // leading ones of the addresses that are in it
	dynamic  bool
	timeout  time.Duration // of each element; 0: each has its own
	constant bool          // all that is in it is known when the table is made:
	elements []element
}

// element is one of a set, as nft lists it and as the kernel takes it.
type element struct {
	text string
	key  []byte
}

type chain struct {
	name  string
	rules []rule
}

// hook is where a chain sees packets.
type hook struct {
	chain    string
	number   *nftables.ChainHook
	priority *nftables.ChainPriority
	text     string // as nft lists it
}

// The chains that see every packet, and the one that sees those to ports which some
// door names. Behind NAT it is known what is somebody's service, and in the end what
// is delivered here.
const (
	baseChain     = "prerouting"
	wallChain     = "wall"
	unservedChain = "unserved"
	trapsChain    = "traps"
	strayChain    = "stray"
	endedChain    = "ended"
	guessChain    = "guess"
	sprayChain    = "spray"
	inputChain    = "input"
	unjudgedChain = "unjudged"
)

// hooks are all of a wall's. Behind a nat chain is behind -100, whatever priority that
// one names (NF_IP_PRI_NAT_DST of linux/netfilter_ipv4.h).
var hooks = []hook{
	{baseChain, nftables.ChainHookPrerouting, nftables.ChainPriorityMangle, "prerouting priority mangle"},
	{unservedChain, nftables.ChainHookPrerouting, nftables.ChainPriorityRef(*nftables.ChainPriorityNATDest + 1), "prerouting priority dstnat + 1"},
	{inputChain, nftables.ChainHookInput, nftables.ChainPriorityMangle, "input priority mangle"},
}

func hookOf(chain string) (h hook, ok bool) {
	i := slices.IndexFunc(hooks, func(h hook) bool { return h.chain == chain })
	if i < 0 {
		return hook{}, false
	}
	return hooks[i], true
}

// The sets of the whole wall.
const (
	servedSet  = "served"  // ports of this host at which somebody listens
	uplinksSet = "uplinks" // interfaces that lead to the rest of the world
)

func knockChain(door string) string                     { return door + "_knock" }
func datagramChain(door string, m method.Method) string { return door + "_" + m.Name() }
func trapChain(door string) string                      { return door + "_trap" }
func admitChain(door string) string                     { return door + "_admit" }
func refuseChain(door string) string                    { return door + "_refuse" }
func unjudgedOf(door string) string                     { return door + "_unjudged" }
func doorTraps(door string) string                      { return door + "_traps" }
func openSet(door string, f family) string              { return door + "_open" + f.suffix }

func admittedCounter(door string) string { return door + "_admitted" }
func refusedCounter(door string) string  { return door + "_refused" }

// NewTable builds the table that a configuration stands for.
//
// A packet that has nothing to do with any door leaves the first hook after eight rules,
// and one more for each wide range of ports that doors name. One to a port that a door
// names goes through the chain "wall": trusted sources leave it at once, those to knocks
// are noted and go on, and then each door that guards the port is asked twice. First
// whether it admits the packet, so that of two doors before one port either may; then,
// if none did, the first one refuses it.
//
// Behind NAT those are found who look for knocks (unserved), and at the host's input
// those packets are refused that reached a guarded port by a way on which they were
// not judged (delivered).
//
// The sequences, the traps and the host in the table are those that the configuration
// has now.
func NewTable(c *effective.Config, n Numbers) *Table {
	t := &Table{Name: c.Wall.Table, numbers: n}
	t.sets = append(t.sets, hostSets(&c.Host)...)
	wall := slices.Clone(ownCopies(c))
	wall = append(wall, trust(c.Wall.Trusted)...)
	var chains []chain
	for d := range doorsOf(c) {
		rules, heard := t.logRules(d, n, c)
		wall = append(wall, rules...)
		chains = append(chains, heard...)
	}
	for _, ask := range []func(string) term{
		func(door string) term { return jump(admitChain(door)) },
		func(door string) term { return goTo(refuseChain(door)) },
	} {
		for d := range doorsOf(c) {
			wall = append(wall, d.guarded(ask(d.Name))...)
		}
	}
	for d := range doorsOf(c) {
		chains = append(chains, t.admit(d, n))
	}
	for d := range doorsOf(c) {
		if len(d.Ports) > 0 {
			chains = append(chains, t.refuse(d, n))
		}
	}
	chains = append(chains, t.unserved(c, n)...)
	chains = append(chains, t.delivered(c)...)
	// What was ended passes by no other door, and not for being trusted. Whoever knocks
	// again is pardoned while it waits.
	var over []rule
	for d := range doorsOf(c) {
		over = append(over, d.guarded(goTo(refuseChain(d.Name)))...)
	}
	t.chains = slices.Concat([]chain{
		{baseChain, base(c)},
		{wallChain, wall},
		{endedChain, over},
	}, chains)
	return t
}

// base lets everything pass that is none of the wall's business.
func base(c *effective.Config) []rule {
	rules := []rule{
		{fromLoopback, accept, unsaved},
		{fromVRF, accept},
		{ended, goTo(endedChain)},
		// A SYN is judged even if conntrack takes it for a known connection's, as it
		// does for a while after that one was reset.
		{ofKnownConnection, withoutFlags(opening), accept},
		{ofKnownConnection, notTCP, accept},
		// One that is sent again, because it was not answered, or the answer was lost, was
		// judged before.
		{judged, ofUnfinished, withFlags(opening), accept},
	}
	for _, ports := range byProtocol(c.NamedPorts()) {
		for _, to := range toPorts(ports[0].Protocol, ports) {
			rules = append(rules, rule{to, goTo(wallChain)})
		}
	}
	return rules
}

// ownCopies let pass what this host has sent to many, and gets back itself.
func ownCopies(c *effective.Config) (rules []rule) {
	if c.Written.HasUDP() {
		for _, own := range fromThisHost {
			rules = append(rules, rule{own, accept})
		}
	}
	return rules
}

// trust returns the rules that let sources pass which need not knock.
func trust(trusted []netip.Prefix) (rules []rule) {
	for _, f := range versions {
		for _, from := range fromAddresses(f, f.of(trusted)) {
			rules = append(rules, rule{from, noteJudged, accept})
		}
	}
	return rules
}

// admit queues the first packets of sources whose window is open.
func (t *Table) admit(d door, n Numbers) chain {
	rules := []rule{{refused, back}}
	rules = append(rules, trust(d.Trusted)...)
	if d.HasProtocol(packet.TCP) {
		rules = append(rules, rule{withoutFlags(opening), back})
	}
	t.counters = append(t.counters, admittedCounter(d.Name))
	if d.HasProtocol(packet.UDP) {
		if o := d.udpTimeout(); !slices.Contains(t.timeouts, o) {
			t.timeouts = append(t.timeouts, o)
		}
	}
	for _, f := range families {
		name := openSet(d.Name, f)
		t.sets = append(t.sets, set{name: name, kind: f.kind, bits: d.bits(f), size: MaxWindows})
		inside := fromSet(f, name, d.bits(f))
		if d.HasProtocol(packet.UDP) {
			rules = append(rules, rule{inside, ofUDP, d.udpTimeout().set()})
		}
		rules = append(rules,
			rule{inside, ofUnconfirmed, noteJudged},
			rule{inside, limit(admittedRate, admittedBurst), count(admittedCounter(d.Name)), queueTo(n.Admitted, true)})
		if d.MaxConnections == 0 {
			// Somebody floods the door under the client's address. What the daemon would
			// only accept and note passes without it.
			rules = append(rules, rule{inside, count(admittedCounter(d.Name)), accept})
		}
	}
	return chain{admitChain(d.Name), rules}
}

// refuse queues the first packets of strangers, and answers everything else as
// the door does when it is closed.
func (t *Table) refuse(d door, n Numbers) chain {
	t.counters = append(t.counters, refusedCounter(d.Name))
	queue := queueTo(n.Strangers, d.OnFailure == ruleset.FailOpen)
	var rules []rule
	if !d.answersAtOnce() {
		// What conntrack has confirmed before may have passed when no door was there.
		rules = append(rules, rule{notRefused, ofUnconfirmed, noteJudged})
	}
	for _, first := range d.firstPackets() {
		if d.answersAtOnce() {
			break
		}
		if d.asksFirst() {
			for _, f := range families {
				rules = append(rules, rule{notRefused, first, fromSet(f, knockingSet(d.Name, f), d.bits(f)),
					limit(knockingRate, knockingBurst), queue})
			}
		}
		rules = append(rules, rule{notRefused, first, limit(strangersRate, strangersBurst), queue})
		if d.OnFailure == ruleset.FailOpen {
			// Who is too many for the daemon is refused by it all the same, as there is no
			// room in this queue; and let in if there is no daemon.
			rules = append(rules, rule{notRefused, first, queueTo(n.Excess, true)})
		}
	}
	if d.answersAtOnce() {
		rules = append(rules, rule{notRefused, limit(noticesRate, noticesBurst), logTo(n.LogGroup, d.Name+suffixes[Refused], packet.SnapLen)})
	}
	return chain{refuseChain(d.Name), append(rules, d.answer()...)}
}

// answer returns the rules that answer as the closed door does.
func (d door) answer() (rules []rule) {
	counted := count(refusedCounter(d.Name))
	if d.Closed == ruleset.Drop {
		return []rule{{counted, drop}}
	}
	// A reset would make conntrack forget the connection that it takes the packet to be
	// of, whoever has sent it.
	rules = append(rules, rule{ofConfirmed, counted, drop}, rule{toNoneOfThis, counted, drop})
	if d.HasProtocol(packet.TCP) {
		rules = append(rules, rule{ofTCP, counted, resetTCP})
	}
	if d.HasProtocol(packet.UDP) {
		rules = append(rules, rule{ofUDP, counted, unreachable})
	}
	return rules
}

// answersAtOnce reports whether the door answers every stranger as fast as a port
// with nothing behind it does. Holding packets would give the door away by the
// time that it takes, and holding only those of who has knocked would give the
// knocks away, one by one. The price is that a SYN which comes before its window
// is open is rejected, and not let in a moment later.
func (d door) answersAtOnce() bool {
	return d.Closed == ruleset.Reject && d.OnFailure == ruleset.FailClosed
}

// holds reports whether strangers may wait before the door. Where they do not, who
// has knocked is answered as anybody else.
func (d door) holds() bool { return len(d.Ports) > 0 && !d.answersAtOnce() }

// asksFirst reports whether those who have knocked wait in a lane of their own. Where
// strangers are answered, the answer would tell which knock was right.
func (d door) asksFirst() bool { return d.holds() && d.Closed == ruleset.Drop }

// guarded returns the rules for what comes to the door's ports.
func (d door) guarded(last term) (rules []rule) {
	for _, ports := range byProtocol(d.Ports) {
		protocol := ports[0].Protocol
		for _, to := range toPorts(protocol, ports) {
			rules = append(rules, d.everywhere(rule{to}, rule{last})...)
			if protocol == packet.UDP && d.ToIsHere {
				// Its programs hear what is sent to many, too.
				rules = append(rules, d.at(rule{to}, toManyHosts, rule{last})...)
			}
		}
	}
	return rules
}

// everywhere returns a rule for each place where the door is, with the match of the
// place between what comes first and last. A packet matches one of them at most.
func (d door) everywhere(first, last rule) (rules []rule) {
	if len(d.To) == 0 {
		return append(d.at(first, toThisHost, last), d.at(first, toThisVRF, last)...)
	}
	for _, f := range versions {
		for _, to := range toAddresses(f, f.of(d.To)) {
			rules = append(rules, d.at(first, to, last)...)
		}
	}
	return rules
}

// at returns a rule for each of the door's interfaces.
func (d door) at(first rule, place term, last rule) (rules []rule) {
	if len(d.Interfaces) == 0 {
		return []rule{slices.Concat(first, rule{place}, last)}
	}
	for _, name := range d.Interfaces {
		rules = append(rules, slices.Concat(first, rule{by(name), place}, last))
	}
	return rules
}

// firstPackets returns the matches for what opens a connection to the door.
func (d door) firstPackets() []term {
	var terms []term
	if d.HasProtocol(packet.TCP) {
		terms = append(terms, withFlags(opening))
	}
	if d.HasProtocol(packet.UDP) {
		terms = append(terms, ofUDP)
	}
	return terms
}

// bits is by how many leading bits of their address sources are told apart.
func (d door) bits(f family) int {
	if f.length == ipv4.length {
		return d.SourcePrefix.IPv4
	}
	return d.SourcePrefix.IPv6
}

// byProtocol splits merged ranges into those of TCP and those of UDP, without
// the empty ones.
func byProtocol(ports []packet.PortRange) [][]packet.PortRange {
	i := slices.IndexFunc(ports, func(r packet.PortRange) bool { return r.Protocol != packet.TCP })
	if i < 0 {
		i = len(ports)
	}
	return slices.DeleteFunc([][]packet.PortRange{ports[:i], ports[i:]}, func(p []packet.PortRange) bool { return len(p) == 0 })
}

// String writes the table as nft lists it.
func (t *Table) String() string {
	var blocks []string
	for _, name := range t.counters {
		blocks = append(blocks, fmt.Sprintf("\tcounter %s {\n\t\tpackets 0 bytes 0\n\t}\n", name))
	}
	for _, o := range t.timeouts {
		blocks = append(blocks, o.String())
	}
	for _, s := range t.sets {
		blocks = append(blocks, s.String())
	}
	for _, c := range t.chains {
		var b strings.Builder
		fmt.Fprintf(&b, "\tchain %s {\n", c.name)
		if h, ok := hookOf(c.name); ok {
			fmt.Fprintf(&b, "\t\ttype filter hook %s; policy accept;\n", h.text)
		}
		for _, r := range c.rules {
			fmt.Fprintf(&b, "\t\t%s\n", r)
		}
		b.WriteString("\t}\n")
		blocks = append(blocks, b.String())
	}
	return fmt.Sprintf("table inet %s {\n%s}\n", t.Name, strings.Join(blocks, "\n"))
}

// Script writes the table as an nft script that puts it in place of the one
// there is, if any, in one transaction.
func (t *Table) Script() string {
	return fmt.Sprintf("table inet %[1]s\ndelete table inet %[1]s\n%[2]s", t.Name, t)
}

func (s set) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\tset %s {\n\t\ttype %s\n", s.name, s.kind.Name)
	if s.size > 0 {
		fmt.Fprintf(&b, "\t\tsize %d\n", s.size)
	}
	switch {
	case s.dynamic:
		b.WriteString("\t\tflags dynamic,timeout\n")
	case !s.constant:
		b.WriteString("\t\tflags timeout\n")
	}
	if s.timeout > 0 {
		fmt.Fprintf(&b, "\t\ttimeout %s\n", nftDuration(s.timeout))
	}
	if len(s.elements) > 0 {
		var words []string
		for _, e := range s.elements {
			words = append(words, e.text)
		}
		fmt.Fprintf(&b, "\t\telements = { %s }\n", strings.Join(words, ",\n\t\t\t     "))
	}
	b.WriteString("\t}\n")
	return b.String()
}

// nftDuration writes a time as nft does: 1h2m3s4ms, without what is zero.
func nftDuration(d time.Duration) string {
	var b strings.Builder
	for _, unit := range []struct {
		name   string
		length time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}} {
		if n := d / unit.length; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, unit.name)
			d -= n * unit.length
		}
	}
	return b.String()
}
