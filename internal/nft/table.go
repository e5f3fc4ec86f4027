//go:build linux

package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"

	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// The rates, in packets a second, at which the kernel passes packets to the daemon, for
// each door and protocol or IP version. They bound the daemon's work. Packets of sources
// without a window (strangers) above their rate are refused without asking the daemon.
// Sources that have just knocked have a rate of their own, so that sources that do not
// know a knock cannot crowd them out. In the default hold time about 400 packets of the
// latter can wait at one door. The queue has room for 40 such floods.
//
// Knocks above their rate are lost, whatever their source. So that rate is about what one
// CPU can read, and more than most networks bring. A possible one-time password costs the
// daemon a hash for each password that it could be. So its rate is one of hashes: a fifth
// of what a CPU can compute, or all of it if the CPU has no instructions for that. The
// rate of admitted packets is that of a whole door, and beyond what any honest crowd sends.
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

// Numbers are the NFLOG group and the queues that a table's rules name.
type Numbers struct {
	LogGroup  uint16
	Admitted  uint16 // queue of sources with an open window
	Strangers uint16 // queue of all other sources
	Excess    uint16 // queue of strangers' packets beyond the rate at which the daemon is asked
}

// NumbersOf returns the numbers of a bank, 0 or 1. The two banks have no number in
// common, so that a daemon can bind the numbers of one while the rules name those of the
// other.
func NumbersOf(w *ruleset.Wall, bank int) Numbers {
	return Numbers{
		LogGroup:  w.LogGroup + uint16(bank),
		Admitted:  w.Queue + uint16(2*bank),
		Strangers: w.Queue + uint16(2*bank) + 1,
		Excess:    w.Queue + 4 + uint16(bank),
	}
}

// Table is an nftables table of the family inet, ready to be installed or printed. It stands
// for a configuration and keeps no rules: a table of many doors has very many.
type Table struct {
	Name string
	// Trial: the kernel deletes the table when the daemon ends, however it ends, if the
	// kernel has table ownership.
	Trial   bool
	numbers Numbers
	config  *effective.Config
}

// contents are all parts of a table.
type contents struct {
	doors    map[uint32]standingDoor
	counters []string
	timeouts []timeout
	sets     []set
	chains   []chain
	outline  *outline
}

type set struct {
	name     string
	kind     nftables.SetDatatype
	size     uint32
	bits     int // leading bits of an address that count
	dynamic  bool
	timeout  time.Duration // of each element; 0: each element has its own
	constant bool          // all its elements are known when the table is made
	elements []element
}

// element is an element of a set, as nft lists it and as the kernel takes it.
type element struct {
	text string
	key  []byte
}

type chain struct {
	name  string
	about string // which packets come here; a comment that only the text of a table has
	rules []rule
}

// hook is where a chain is hooked in.
type hook struct {
	chain    string
	number   *nftables.ChainHook
	priority *nftables.ChainPriority
	text     string // the hook as nft lists it
}

// The chains of the whole wall. The base chain sees every packet, and the wall chain
// those to ports that a door names. The ports chain leads to the rules for each port, and
// the knocks chain to those for each knock. The unserved chain is behind NAT, where it is known
// which packets go to another host's service. The input chain sees the packets that are
// delivered here.
const (
	baseChain     = "prerouting"
	wallChain     = "wall"
	portsChain    = "ports"
	knocksChain   = "knocks"
	knockedChain  = "knocked"
	unservedChain = "unserved"
	trapsChain    = "traps"
	strayChain    = "stray"
	guessChain    = "guess"
	sprayChain    = "spray"
	inputChain    = "input"
	unjudgedChain = "unjudged"
)

// hooks are the hooks of a wall. A chain behind NAT has a priority above -100, whatever
// priority the nat chains name (NF_IP_PRI_NAT_DST of linux/netfilter_ipv4.h).
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
	servedSet  = "served"  // ports of this host that have a listener
	uplinksSet = "uplinks" // interfaces that lead to the rest of the world
)

func knockChain(door string) string { return door + "_knock" }

// datagramChain returns the name of the chain for the datagrams of a kind, by its index.
func datagramChain(door string, m method.Method, kind int) string {
	if kind == 0 {
		return door + "_" + m.Name()
	}
	return fmt.Sprintf("%s_%s_%d", door, m.Name(), kind+1)
}

func trapChain(door string) string     { return door + "_trap" }
func triesChain(door string) string    { return door + "_tries" }
func admitChain(door string) string    { return door + "_admit" }
func admittedChain(door string) string { return door + "_admitted" }
func refuseChain(door string) string   { return door + "_refuse" }
func unjudgedOf(door string) string    { return door + "_unjudged" }

func admittedCounter(door string) string { return door + "_admitted" }
func refusedCounter(door string) string  { return door + "_refused" }

// NewTable returns the table for a configuration, which must not change afterwards.
//
// A packet that no door is concerned with leaves the prerouting chain after eight rules,
// and one more for each wide range of ports that doors name. A packet to a port that a
// door names goes through the chain "wall". Trusted sources leave it at once. All others go
// on in the chain "ports": a packet to a knock goes through the chain "knocks" and, unless its
// knocks are ignored, is logged by the chain of each door with that knock. Then it goes on in the
// chain for its port (see [byPort]), where it passes each door that guards the port twice:
// first the admit chains, so that any of several doors at one port may admit it; then, if
// none did, the first door's refuse chain.
//
// Behind NAT, the chain "unserved" finds sources that search for knocks. At the input
// hook, the rules of delivered refuse packets that reached a guarded port without being
// judged before.
//
// The sequences, the traps and the state of the host in the table are those that the
// configuration has now.
func NewTable(c *effective.Config, n Numbers) *Table {
	return &Table{Name: c.Wall.Table, numbers: n, config: c}
}

// contents builds all parts of the table.
func (t *Table) contents() *contents {
	c := newContents(t.config, t.numbers)
	c.outline = outlineOf(c)
	return c
}

func newContents(c *effective.Config, n Numbers) *contents {
	t := &contents{doors: standingDoors(c)}
	spray := sprayBitsOf(c)
	// The kernel finds a set by comparing names in the order of the sets, for each rule that
	// names one. So the sets that all doors name come first.
	t.sets = slices.Concat(hostSets(&c.Host), searchSets(c, spray), sharedSets(c))
	var knocked, heard, admitted, refused []part
	var knocks []packet.PortRange
	chains := t.rememberKnocks(c, spray)
	for d := range doorsOf(c) {
		parts, rules := d.knockRules(n, spray)
		knocked = append(knocked, parts...)
		chains = append(chains, rules...)
		parts, rules = d.datagramRules(n)
		heard = append(heard, parts...)
		chains = append(chains, rules...)
		knocks = append(knocks, packet.Ranges(d.AllKnocks())...)
		admitted = append(admitted, d.guarded(admitChain(d.Name))...)
		refused = append(refused, d.guarded(refuseChain(d.Name))...)
	}
	for d := range doorsOf(c) {
		chains = append(chains, t.admit(d, n)...)
	}
	for d := range doorsOf(c) {
		if len(d.Ports) > 0 {
			chains = append(chains, t.refuse(d, n))
		}
	}
	chains = append(chains, t.unserved(c, n, spray)...)
	chains = append(chains, t.delivered(c)...)
	ports, portChains := byPort(portsChain, slices.Concat(heard, admitted, refused))
	t.chains = slices.Concat([]chain{
		{baseChain, "All packets, as they come in.", base(c)},
		{wallChain, "Packets to ports that doors name.", append(slices.Concat(ownCopies(c), trust(c.Wall.Trusted)), rule{goTo(portsChain)})},
		{portsChain, "The same, but for those of trusted sources, and packets of connections that were ended.", append(toAny(knocks, jump(knocksChain)), ports...)},
	}, knockChains(knocked, spray), portChains, chains)
	return t
}

// base accepts all packets that the wall is not concerned with.
func base(c *effective.Config) []rule {
	rules := []rule{
		{fromLoopback, accept, unsaved},
		{fromVRF, accept},
		{ended, goTo(portsChain)}, // not as packets of a trusted source
		// A SYN is judged even if conntrack takes it for a known connection's, as it does
		// for a while after that connection was reset.
		{ofKnownConnection, withoutFlags(opening), accept},
		{ofKnownConnection, notTCP, accept},
		// A retransmitted SYN, whose original was not answered or whose answer was lost,
		// was judged before.
		{judged, ofUnfinished, withFlags(opening), accept},
	}
	return append(rules, toAny(c.NamedPorts(), goTo(wallChain))...)
}

// ownCopies returns the rules that accept packets which this host has sent to many hosts
// and receives itself.
func ownCopies(c *effective.Config) (rules []rule) {
	if c.Written.HasUDP() {
		for _, own := range fromThisHost {
			rules = append(rules, rule{own, accept})
		}
	}
	return rules
}

// trust returns the rules that accept packets of trusted sources, which need not knock.
func trust(trusted []netip.Prefix) (rules []rule) {
	for _, f := range versions {
		for _, from := range fromAddresses(f, f.of(trusted)) {
			rules = append(rules, rule{from, noteJudged, accept})
		}
	}
	return rules
}

// admit returns the chains that queue the first packets of sources with an open window.
func (t *contents) admit(d door, n Numbers) []chain {
	rules := append(d.elsewhere(), rule{refused, back}, rule{ended, back})
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
	var inside []rule
	if d.HasProtocol(packet.UDP) {
		inside = append(inside, rule{ofUDP, d.udpTimeout().set()})
	}
	inside = append(inside,
		rule{ofUnconfirmed, noteJudged},
		rule{limit(admittedRate, admittedBurst), count(admittedCounter(d.Name)), queueTo(n.Admitted, true)})
	if d.MaxConnections == 0 {
		// Above the rate somebody floods the door under a client's address. The daemon
		// would only accept and note these packets, so they pass without it.
		inside = append(inside, rule{count(admittedCounter(d.Name)), accept})
	}
	for _, f := range families {
		rules = append(rules, rule{fromSet(openSet(f), d.window(f)), goTo(admittedChain(d.Name))})
	}
	return []chain{
		{admitChain(d.Name), "Packets to ports of the door " + d.Name + ": does the source have an open window?", rules},
		{admittedChain(d.Name), "Packets of sources with an open window of the door " + d.Name + ".", inside},
	}
}

// refuse queues the first packets of sources without a window, and answers all other
// packets as the closed door does.
func (t *contents) refuse(d door, n Numbers) chain {
	t.counters = append(t.counters, refusedCounter(d.Name))
	queue := queueTo(n.Strangers, d.OnFailure == ruleset.FailOpen)
	rules := d.elsewhere()
	if !d.answersAtOnce() {
		// A connection that conntrack confirmed before may date from before the door.
		rules = append(rules, rule{notRefused, ofUnconfirmed, noteJudged})
	}
	for _, first := range d.firstPackets() {
		if d.answersAtOnce() {
			break
		}
		if d.asksFirst() {
			for _, f := range families {
				rules = append(rules, rule{notRefused, first, fromSet(knockingSet(d.source(f)), d.source(f)),
					limit(knockingRate, knockingBurst), queue})
			}
		}
		rules = append(rules, rule{notRefused, first, limit(strangersRate, strangersBurst), queue})
		if d.OnFailure == ruleset.FailOpen {
			// If there are too many packets for the daemon, it still refuses them,
			// because this queue has no room. Without a daemon they are accepted.
			rules = append(rules, rule{notRefused, first, queueTo(n.Excess, true)})
		}
	}
	if d.answersAtOnce() {
		rules = append(rules, rule{notRefused, limit(noticesRate, noticesBurst), logTo(n.LogGroup, d.Name+suffixes[Refused], packet.SnapLen)})
	}
	return chain{refuseChain(d.Name), "Packets that the door " + d.Name + " does not admit.", append(rules, d.answer()...)}
}

// answer returns the rules that answer as the closed door does.
func (d door) answer() (rules []rule) {
	counted := count(refusedCounter(d.Name))
	if d.Closed == ruleset.Drop {
		return []rule{{counted, drop}}
	}
	// A reset would make conntrack forget the connection that it takes the packet for,
	// whatever its real source.
	rules = append(rules, rule{ofConfirmed, counted, drop}, rule{toNoneOfThis, counted, drop})
	if d.HasProtocol(packet.TCP) {
		rules = append(rules, rule{ofTCP, counted, resetTCP})
	}
	if d.HasProtocol(packet.UDP) {
		rules = append(rules, rule{ofUDP, counted, unreachable})
	}
	return rules
}

// answersAtOnce reports whether the door answers every source without a window as fast as
// a closed port does. Holding packets would reveal the door by the delay. Holding only
// the packets of sources that have knocked would reveal the knocks one by one. In return,
// a SYN that comes before its window is open is rejected, and not admitted a moment
// later.
func (d door) answersAtOnce() bool {
	return d.Closed == ruleset.Reject && d.OnFailure == ruleset.FailClosed
}

// holds reports whether packets of sources without a window may wait at the door. If not,
// sources that have knocked are answered like all others.
func (d door) holds() bool { return len(d.Ports) > 0 && !d.answersAtOnce() }

// asksFirst reports whether packets of sources that have knocked are queued at a rate of
// their own. If the door rejects strangers, the answer would tell which knock was right.
func (d door) asksFirst() bool { return d.holds() && d.Closed == ruleset.Drop }

// guarded returns parts that pass packets to the door's ports to a chain. It may return them.
func (d door) guarded(chain string) (parts []part) {
	last := rule{jump(chain)}
	for _, ports := range byProtocol(d.Ports) {
		parts = append(parts, part{chain, ports, d.To, d.everywhere(nil, last)})
		if ports[0].Protocol == packet.UDP && d.ToIsHere {
			// UDP services also receive packets to broadcast and multicast addresses.
			parts = append(parts, part{name: chain + manyHosts, ports: ports, rules: d.at(nil, rule{toManyHosts}, []rule{last})})
		}
	}
	return parts
}

// manyHosts ends the names of the parts for packets that are sent to many hosts.
const manyHosts = "_many"

// isHere reports whether the door is at all addresses and interfaces of this host. Then the
// chains of the door itself return packets to others, see [door.elsewhere], and all packets to
// a port can go to the same chain.
func (d door) isHere() bool { return len(d.To) == 0 && len(d.Interfaces) == 0 }

// elsewhere returns the rule that returns packets to other hosts, if no rule before has
// looked where they go.
func (d door) elsewhere() []rule {
	if d.isHere() {
		return []rule{{toOtherHosts, back}}
	}
	return nil
}

// everywhere returns rules for packets to the door's addresses that lead to a chain of the
// door, which returns those that [door.elsewhere] matches.
func (d door) everywhere(first, last rule) (rules []rule) {
	if d.isHere() {
		return []rule{slices.Concat(first, last)}
	}
	return d.placed(first, last)
}

// placed returns a rule for each address of the door, with the match of the address
// between first and last. A packet matches at most one of them.
func (d door) placed(first, last rule) (rules []rule) {
	if len(d.To) == 0 {
		return append(d.at(first, rule{toThisHost}, []rule{last}), d.at(first, rule{toThisVRF}, []rule{last})...)
	}
	for _, f := range versions {
		for _, to := range toAddresses(f, f.of(d.To)) {
			rules = append(rules, d.at(first, rule{to}, []rule{last})...)
		}
	}
	return rules
}

// at returns the rules last for each of the door's interfaces, at a place.
func (d door) at(first, place rule, last []rule) (rules []rule) {
	interfaces := []rule{{}}
	if len(d.Interfaces) > 0 {
		interfaces = nil
	}
	for _, name := range d.Interfaces {
		interfaces = append(interfaces, rule{by(name)})
	}
	for _, in := range interfaces {
		for _, l := range last {
			rules = append(rules, slices.Concat(first, in, place, l))
		}
	}
	return rules
}

// firstPackets returns the matches for packets that begin a connection to the door.
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

// source returns what tells sources apart at the door.
func (d door) source(f family) sourceKey {
	if f.length == ipv4.length {
		return sourceKey{family: f, bits: d.SourcePrefix.IPv4}
	}
	return sourceKey{family: f, bits: d.SourcePrefix.IPv6}
}

// window returns the key of a source's window at the door.
func (d door) window(f family) sourceKey { return d.source(f).numbered(d.Name) }
