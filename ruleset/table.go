package ruleset

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
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
	passwordsBurst = 5000
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
}

// Numbers returns those of a turn, 0 or 1. The turns have nothing in common, so
// that a daemon can bind those of one while the rules name those of the other.
func (w *Wall) Numbers(turn int) Numbers {
	return Numbers{
		LogGroup:  w.LogGroup + uint16(turn),
		Admitted:  w.Queue + uint16(2*turn),
		Strangers: w.Queue + uint16(2*turn) + 1,
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
	sets     []set
	chains   []chain
}

type set struct {
	name     string
	family   family
	elements []netip.Prefix // constant; the set is an interval set then
	size     uint32
	bits     int // leading ones of the addresses that are in it, if it is no interval set
	dynamic  bool
	timeout  time.Duration // of each element; 0: each has its own
}

type chain struct {
	name  string
	rules []rule
}

// The chain that sees every packet, and the one that sees those to ports which
// some door names.
const (
	baseChain = "prerouting"
	wallChain = "wall"
)

func knockChain(door string) string        { return door + "_knock" }
func passwordChain(door string) string     { return door + "_otp" }
func trapChain(door string) string         { return door + "_trap" }
func admitChain(door string) string        { return door + "_admit" }
func refuseChain(door string) string       { return door + "_refuse" }
func openSet(door string, f family) string { return door + "_open" + f.digit }

func admittedCounter(door string) string { return door + "_admitted" }
func refusedCounter(door string) string  { return door + "_refused" }

// NewTable builds the table that a configuration stands for.
//
// A packet that has nothing to do with any door leaves after three rules. One to
// a port that a door names goes through the chain "wall": trusted sources leave
// it at once, those to knocks and traps are noted and go on, and then each door that
// guards the port is asked twice. First whether it admits the packet, so that of two
// doors before one port either may; then, if none did, the first one refuses it.
//
// The sequences and traps in the table are those that the configuration has now.
func NewTable(c *Config, n Numbers) *Table {
	t := &Table{Name: c.Wall.Table, numbers: n}
	wall := t.trust("", c.Wall.Trusted)
	var chains []chain
	for i := range c.Doors {
		rules, heard := t.hear(&c.Doors[i], n, uint32(c.Wall.MaxSources))
		wall = append(wall, rules...)
		chains = append(chains, heard...)
	}
	for _, ask := range []func(string) term{
		func(door string) term { return jump(admitChain(door)) },
		func(door string) term { return goTo(refuseChain(door)) },
	} {
		for i := range c.Doors {
			d := &c.Doors[i]
			for _, ports := range byProtocol(d.Ports) {
				wall = append(wall, d.everywhere(rule{toPorts(ports[0].Protocol, ports)}, rule{ask(d.Name)})...)
			}
		}
	}
	for i := range c.Doors {
		chains = append(chains, t.admit(&c.Doors[i], n))
	}
	for i := range c.Doors {
		if len(c.Doors[i].Ports) > 0 {
			chains = append(chains, t.refuse(&c.Doors[i], n))
		}
	}
	t.chains = slices.Concat([]chain{
		{baseChain, base(c)},
		{wallChain, wall},
	}, chains)
	return t
}

// base lets everything pass that is none of the wall's business.
func base(c *Config) []rule {
	rules := []rule{
		{fromLoopback, accept},
		// A SYN is judged even if conntrack takes it for a known connection's, as it
		// does for a while after that one was reset.
		{ofKnownConnection, notEnded, withoutFlags(opening), accept},
		{ofKnownConnection, notEnded, notTCP, accept},
	}
	named := c.named()
	for _, d := range c.Doors {
		named = append(named, d.Traps...)
	}
	for _, ports := range byProtocol(merge(named)) {
		rules = append(rules, rule{toPorts(ports[0].Protocol, ports), goTo(wallChain)})
	}
	return rules
}

// trust adds the sets of sources that need not knock, and returns the rules
// that let them pass.
func (t *Table) trust(door string, trusted []netip.Prefix) []rule {
	name := "trusted"
	if door != "" {
		name = door + "_trusted"
	}
	var rules []rule
	for _, f := range families {
		if prefixes := f.of(trusted); len(prefixes) > 0 {
			t.sets = append(t.sets, set{name: name + f.digit, family: f, elements: prefixes})
			rules = append(rules, rule{fromSet(f, name+f.digit, f.length*8), accept})
		}
	}
	return rules
}

// admit queues the first packets of sources whose window is open.
func (t *Table) admit(d *Door, n Numbers) chain {
	rules := []rule{{refused, back}}
	rules = append(rules, t.trust(d.Name, d.Trusted)...)
	if d.hasProtocol(packet.TCP) {
		rules = append(rules, rule{withoutFlags(opening), back})
	}
	t.counters = append(t.counters, admittedCounter(d.Name))
	for _, f := range families {
		name := openSet(d.Name, f)
		t.sets = append(t.sets, set{name: name, family: f, bits: d.bits(f), size: MaxWindows})
		inside := fromSet(f, name, d.bits(f))
		rules = append(rules,
			rule{inside, pardon},
			rule{inside, limit(admittedRate, admittedBurst), count(admittedCounter(d.Name)), queueTo(n.Admitted, true)})
		if d.MaxConnections == 0 {
			// Somebody floods the door under the guest's address. What the daemon would
			// only accept and note passes without it.
			rules = append(rules, rule{inside, count(admittedCounter(d.Name)), accept})
		}
	}
	return chain{admitChain(d.Name), rules}
}

// refuse queues the first packets of strangers, and answers everything else as
// the door does when it is closed.
func (t *Table) refuse(d *Door, n Numbers) chain {
	t.counters = append(t.counters, refusedCounter(d.Name))
	queue := queueTo(n.Strangers, d.OnFailure == FailOpen)
	var rules []rule
	for _, first := range d.firstPackets() {
		if d.answersAtOnce() {
			break
		}
		for _, f := range families {
			rules = append(rules, rule{notRefused, first, fromSet(f, knockingSet(d.Name, f), d.bits(f)),
				limit(knockingRate, knockingBurst), queue})
		}
		rules = append(rules, rule{notRefused, first, limit(strangersRate, strangersBurst), queue})
	}
	if d.answersAtOnce() {
		rules = append(rules, rule{notRefused, limit(noticesRate, noticesBurst), logTo(n.LogGroup, d.Name+suffixes[Refused], packet.SnapLen)})
	}
	counted := count(refusedCounter(d.Name))
	if d.Closed == Drop {
		rules = append(rules, rule{counted, drop})
		return chain{refuseChain(d.Name), rules}
	}
	if d.hasProtocol(packet.TCP) {
		rules = append(rules, rule{ofTCP, counted, resetTCP})
	}
	if d.hasProtocol(packet.UDP) {
		rules = append(rules, rule{ofUDP, counted, unreachable})
	}
	return chain{refuseChain(d.Name), rules}
}

// answersAtOnce reports whether the door answers every stranger as fast as a port
// with nothing behind it does. Holding packets would give the door away by the
// time that it takes, and holding only those of who has knocked would give the
// knocks away, one by one. The price is that a SYN which comes before its window
// is open is rejected, and not let in a moment later.
func (d *Door) answersAtOnce() bool { return d.Closed == Reject && d.OnFailure == FailClosed }

// holds reports whether strangers may wait before the door. Where they do not, who
// has knocked is answered as anybody else.
func (d *Door) holds() bool { return len(d.Ports) > 0 && !d.answersAtOnce() }

// everywhere returns a rule for each place where the door is, with the match of the
// place between what comes first and last.
func (d *Door) everywhere(first, last rule) (rules []rule) {
	interfaces := []rule{{}}
	if len(d.Interfaces) > 0 {
		interfaces = nil
		for _, name := range d.Interfaces {
			interfaces = append(interfaces, rule{by(name)})
		}
	}
	for _, in := range interfaces {
		if len(d.To) == 0 {
			rules = append(rules, slices.Concat(first, in, rule{toThisHost}, last))
		}
		for _, f := range families {
			if to := f.of(d.To); len(to) > 0 {
				rules = append(rules, slices.Concat(first, in, rule{toAddresses(f, to)}, last))
			}
		}
	}
	return rules
}

// firstPackets returns the matches for what opens a connection to the door.
func (d *Door) firstPackets() []term {
	var terms []term
	if d.hasProtocol(packet.TCP) {
		terms = append(terms, withFlags(opening))
	}
	if d.hasProtocol(packet.UDP) {
		terms = append(terms, ofUDP)
	}
	return terms
}

func (d *Door) hasProtocol(p packet.Protocol) bool {
	return slices.ContainsFunc(d.Ports, func(r packet.PortRange) bool { return r.Protocol == p })
}

// bits is by how many leading bits of their address sources are told apart.
func (d *Door) bits(f family) int {
	if f.length == ipv4.length {
		return d.SourcePrefix.IPv4
	}
	return d.SourcePrefix.IPv6
}

func single(ports []packet.Port) []packet.PortRange {
	var ranges []packet.PortRange
	for _, p := range ports {
		ranges = append(ranges, packet.PortRange{First: p.Number, Last: p.Number, Protocol: p.Protocol})
	}
	return ranges
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
	for _, s := range t.sets {
		blocks = append(blocks, s.String())
	}
	for _, c := range t.chains {
		var b strings.Builder
		fmt.Fprintf(&b, "\tchain %s {\n", c.name)
		if c.name == baseChain {
			b.WriteString("\t\ttype filter hook prerouting priority mangle; policy accept;\n")
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
	fmt.Fprintf(&b, "\tset %s {\n\t\ttype %s\n", s.name, s.family.kind.Name)
	if s.size > 0 {
		fmt.Fprintf(&b, "\t\tsize %d\n", s.size)
	}
	switch {
	case s.dynamic:
		b.WriteString("\t\tflags dynamic,timeout\n")
	case s.elements != nil:
		b.WriteString("\t\tflags interval\n")
	default:
		b.WriteString("\t\tflags timeout\n")
	}
	if s.timeout > 0 {
		fmt.Fprintf(&b, "\t\ttimeout %s\n", nftDuration(s.timeout))
	}
	if s.elements != nil {
		perLine := map[string]int{"4": 2, "6": 1}[s.family.digit]
		b.WriteString("\t\telements = { ")
		for i, p := range s.elements {
			switch {
			case i == 0:
			case i%perLine == 0:
				b.WriteString(",\n\t\t\t     ")
			default:
				b.WriteString(", ")
			}
			b.WriteString(packet.Source{Prefix: p}.String())
		}
		b.WriteString(" }\n")
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
