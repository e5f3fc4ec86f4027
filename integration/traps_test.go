package integration

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/packet"
)

// trapRules have two doors with the same knocks, one of them with traps that are
// written down; the penalty is the least that there is.
const trapRules = `door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  traps    = [5000, "6000/udp", "6100-6110/tcp"]
  penalty  = "1s"
}
door "web" {
  ports    = [80]
  sequence = [4113, "27911/udp", 1840]
  traps    = 0
}`

const trapPenalty = time.Second

// Who has tried a trap cannot knock at that door until the penalty is over, and can
// then, from the first knock on. What is open stays open, and other doors hear it.
func TestWhoTriesATrapCannotKnockForAWhile(t *testing.T) {
	t.Parallel()
	for family, to := range map[string]netip.Addr{"IPv4": server4, "IPv6": server6} {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.serve(22)
			l.serve(80)
			d := l.run(trapRules)
			for n, trap := range []packet.Port{tcp(5000), udp(6000), tcp(6105)} {
				source := nth(n+1, to)
				what := "the trap " + trap.String()
				l.knock(source, to, trap)
				knocked := time.Now()
				l.knock(source, to, survivalKnocks...)
				if !l.letsIn(source, to, 80) {
					t.Errorf("%s: another door does not hear the source", what)
				}
				if l.admits(source, to, 22) {
					t.Errorf("%s: the source knocks all the same, %s later", what, time.Since(knocked))
				}
				d.waitFor("trapped", "door=ssh", "source="+source.String()+" ", "port="+trap.String())
				l.waitUntilFree("ssh", source)
				l.knock(source, to, survivalKnocks...)
				if !l.letsIn(source, to, 22) {
					t.Errorf("%s: the source cannot knock after the penalty", what)
				}
			}

			midway := nth(10, to)
			l.knock(midway, to, tcp(4113), udp(27911), tcp(5000))
			l.waitUntilFree("ssh", midway)
			l.knock(midway, to, tcp(1840))
			if l.admits(midway, to, 22) {
				t.Error("what was knocked before the trap counts after the penalty")
			}

			guest := nth(11, to)
			session := l.enter(guest, to)
			l.knock(guest, to, tcp(5000))
			eventually(t, "the guest is trapped", func() bool { return l.trapped("ssh", guest) })
			if err := talks(session); err != nil {
				t.Errorf("a trap has ended a session: %v", err)
			}
			if !l.letsIn(guest, to, 22) {
				t.Error("a trap has closed an open window")
			}
		})
	}
}

// A trap tried again prolongs the penalty: it counts from the last try.
func TestATrapTriedAgainProlongsThePenalty(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(22)
	d := l.run(trapRules)
	for _, to := range []netip.Addr{server4, server6} {
		inTime := false
		for try := 1; !inTime; try++ { // on a machine that was too slow, once more
			source := nth(try, to)
			first := time.Now()
			l.knock(source, to, tcp(5000))
			time.Sleep(trapPenalty * 6 / 10)
			second := time.Now()
			l.knock(source, to, tcp(5000))
			time.Sleep(time.Until(first.Add(trapPenalty * 13 / 10))) // the first try's penalty is over
			l.knock(source, to, survivalKnocks...)
			inTime = time.Since(second) < trapPenalty*9/10
			if heard := l.admits(source, to, 22) || d.logged("opened", "door=ssh", "source="+source.String()+" ") > 0; heard && inTime {
				t.Errorf("%s: after the first try's penalty the source is heard, and has tried again within it", to)
			}
		}
	}
}

// No trap is where a program listens: not when the daemon starts, not after a
// reload. Who connects to such a program is nobody who scans.
func TestNoTrapIsWhereAProgramListens(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const rules = `door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
}`
	l.serve(22)
	path := l.rules(rules)
	listenOn := func(traps []packet.Port) (now []packet.Port) {
		for _, protocol := range []packet.Protocol{packet.TCP, packet.UDP} {
			n := 0
			for _, p := range traps {
				if p.Protocol != protocol || n == 3 {
					continue
				}
				n++
				now = append(now, p)
				if protocol == packet.TCP {
					l.serve(int(p.Number))
				} else {
					l.serveUDP(int(p.Number), netip.IPv6Unspecified())
				}
			}
			if n != 3 {
				t.Fatalf("of %s there are %d traps: too few to test anything", protocol, n)
			}
		}
		return now
	}
	predicted := func() []packet.Port { return trapsIn(t, l.onServer("ruleset", "--config", path)) }
	standing := func() []packet.Port { return trapsIn(t, l.nft("list", "table", "inet", "knockwall")) }
	none := func(when string, of []packet.Port) {
		t.Helper()
		now := standing()
		if want := predicted(); !slices.Equal(now, want) || len(now) != 64 {
			t.Errorf("%s: the traps are %v; ruleset says %v", when, now, want)
		}
		for _, p := range of {
			if slices.Contains(now, p) {
				t.Errorf("%s: %s is a trap, and a program listens there", when, p)
			}
		}
	}
	first := listenOn(predicted())
	d := l.runFile(path)
	none("after the start", first)

	second := listenOn(standing())
	if !slices.Contains(standing(), second[0]) {
		t.Error("what listens since is no trap even before a reload, so that the reload tests nothing")
	}
	l.onServer("reload", "--control", d.control)
	none("after the reload", append(first, second...))
	l.knock(client4, server4, slices.Concat(first, second, survivalKnocks)...)
	if !l.letsIn(client4, server4, 22) {
		t.Error("who uses the programs cannot knock")
	}
}

// What is sent to a trap is answered as what is sent to a knock, or to a port with
// nothing behind it, whether the host answers or not.
func TestAScanTellsNoTraps(t *testing.T) {
	t.Parallel()
	nmap := needs(t, "nmap")
	// The knock, the trap and the port that is nothing stand side by side, as
	// parseStates reads them.
	const rules = `door "ssh" {
  ports    = [22]
  sequence = [3999, "3999/udp", 1840]
  traps    = [4000, "4000/udp"]
}`
	for _, c := range []struct {
		name, script string
		scans        []string
	}{
		{"a host that answers", "", scans},
		{"a host that drops", `table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		meta l4proto ipv6-icmp accept
	}
}`, []string{"-sS", "-sU"}}, // as nmap waits long for what does not come
	} {
		for family, to := range map[string]netip.Addr{"IPv4": server4, "IPv6": server6} {
			t.Run(c.name+", "+family, func(t *testing.T) {
				t.Parallel()
				l := newLab(t)
				l.unlimitICMP()
				if c.script != "" {
					l.nftScript(c.script)
				}
				d := l.run(rules)
				for _, scan := range c.scans {
					states := l.scan(t, nmap, scan, to, "3999-4001")
					knock, trap, nothing := parseStates(t, states)
					if knock != nothing || trap != nothing {
						t.Errorf("nmap %s: the knock is %s, the trap %s, their neighbour %s", scan, knock, trap, nothing)
					}
				}
				d.waitFor("trapped", "door=ssh")
			})
		}
	}
}

// Traps cost what is sent elsewhere nothing: as many rules are passed with them as
// without.
func TestTrapsAddNoRuleForOtherPackets(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	rules := func(traps int) string {
		return fmt.Sprintf("door \"ssh\" {\n ports = [22]\n sequence = [4113, \"27911/udp\", 1840]\n traps = %d\n}", traps)
	}
	rulesPassed := map[int]int{}
	for _, traps := range []int{0, 64, 1024} {
		d := l.run(rules(traps))
		chain := l.nft("list", "chain", "inet", "knockwall", "prerouting")
		rulesPassed[traps] = strings.Count(chain, "accept\n") + strings.Count(chain, "goto wall\n")
		if listed := len(trapsIn(t, l.nft("list", "table", "inet", "knockwall"))); (listed > 0) != (traps > 0) {
			t.Errorf("with traps = %d there are %d", traps, listed)
		}
		must(t, d.end(unix.SIGTERM))
	}
	if n := rulesPassed[0]; n == 0 || rulesPassed[64] != n || rulesPassed[1024] != n {
		t.Errorf("by the number of traps, a packet that has nothing to do with any door passes so many rules: %v", rulesPassed)
	}
}

// Traps that are tried under 20,000 addresses keep nobody else out, and are no flood
// of log.
func TestAFloodOfTrappedSourcesKeepsNobodyOut(t *testing.T) {
	t.Parallel()
	const sources, newcomers = 20000, 40
	l := newLab(t)
	l.serve(22)
	d := l.run(strings.Replace(trapRules, `"1s"`, `"1m"`, 1))
	began := time.Now()
	socket := l.rawSocket(server4)
	defer unix.Close(socket)
	for n := range sources {
		must(t, forge.Segment{From: nth(n+1, server4), To: server4, SourcePort: 40000, Port: tcp(5000), Sequence: uint32(n), Flags: packet.SYN}.Send(socket))
		if n%(sources/newcomers) == 0 {
			who := nth(sources+1+n, server4)
			if err := l.onFirstSYN(who, server4, survivalKnocks...); err != nil {
				t.Errorf("after %d sources, %s: %v", n, who, err)
			}
		}
	}
	if n := strings.Count(l.nft("list", "set", "inet", "knockwall", "ssh_trapped4"), "expires"); n != sources {
		t.Errorf("the kernel keeps %d sources from knocking, want %d", n, sources)
	}
	if l.knock(nth(1, server4), server4, survivalKnocks...); l.admits(nth(1, server4), server4, 22) {
		t.Error("the first of them is heard")
	}
	if n := d.status().Doors[0].Counters.Trapped; n == 0 || n > sources {
		t.Errorf("the daemon counts %d packets to traps", n)
	}
	d.waitFor("trapped", "door=ssh", "from many other sources")
	if n, most := d.logged("trapped"), floodLines(time.Since(began)); n > most {
		t.Errorf("the log has %d lines of it, want %d at most", n, most)
	}
	t.Logf("lines of %d trapped sources: %d", sources, d.logged("trapped"))
}

// waitUntilFree waits until the penalty of a source is over.
func (l *lab) waitUntilFree(door string, source netip.Addr) {
	l.t.Helper()
	eventually(l.t, source.String()+" is trapped no longer", func() bool { return !l.trapped(door, source) })
}

// trapped reports whether the kernel keeps a source from knocking at a door.
func (l *lab) trapped(door string, source netip.Addr) bool {
	l.t.Helper()
	set, network := door+"_trapped4", source
	if source.Is6() { // all of a /64 are trapped together, by default
		set = door + "_trapped6"
		prefix, err := source.Prefix(64)
		must(l.t, err)
		network = prefix.Addr()
	}
	words := strings.FieldsFunc(l.nft("list", "set", "inet", "knockwall", set), func(r rune) bool { return strings.ContainsRune(" \t\n{},", r) })
	return slices.Contains(words, source.String()) || slices.Contains(words, network.String())
}

// onServer runs the program under test on the server, whose sockets it sees there.
func (l *lab) onServer(arguments ...string) string {
	l.t.Helper()
	cmd := knockwall(arguments...)
	out := &output{}
	cmd.Stdout = out
	must(l.t, on(l.server, cmd))
	must(l.t, cmd.Wait())
	return out.String()
}

var trapLine = regexp.MustCompile(`(tcp|udp) dport (\{[^}]*\}|\S+) goto ssh_trap`)

// trapsIn returns the traps of the door "ssh" that a listing has.
func trapsIn(t *testing.T, listing string) (traps []packet.Port) {
	t.Helper()
	for _, m := range trapLine.FindAllStringSubmatch(listing, -1) {
		for _, word := range strings.FieldsFunc(m[2], func(r rune) bool { return strings.ContainsRune("{ },\n\t", r) }) {
			first, last, isRange := strings.Cut(word, "-")
			if !isRange {
				last = first
			}
			from, err := strconv.Atoi(first)
			must(t, err)
			to, err := strconv.Atoi(last)
			must(t, err)
			for n := from; n <= to; n++ {
				p, err := packet.ParsePort(fmt.Sprintf("%d/%s", n, m[1]))
				must(t, err)
				traps = append(traps, p)
			}
		}
	}
	return traps
}
