package traps

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// trapRules are two doors with the same knocks. One of them has traps, and the shortest
// penalty that is allowed.
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

// A source that has tried a trap cannot knock at that door until the penalty ends. Then it
// can, from the first knock on. Its open windows stay open, and other doors hear it.
func TestASourceThatTriesATrapCannotKnockForAWhile(t *testing.T) {
	t.Parallel()
	for family, to := range map[string]netip.Addr{"IPv4": lab.Server4, "IPv6": lab.Server6} {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			l.ServeTCP(22)
			l.ServeTCP(80)
			d := l.Run(trapRules)
			for n, trap := range []packet.Port{lab.TCP(5000), lab.UDP(6000), lab.TCP(6105)} {
				source := lab.Source(n+1, to)
				what := "the trap " + trap.String()
				l.Knock(source, to, trap)
				knocked := time.Now()
				l.Knock(source, to, lab.Knocks...)
				if !l.Admits(source, to, 80) {
					t.Errorf("%s: another door does not hear the source", what)
				}
				if l.AdmitsAtOnce(source, to, 22) {
					t.Errorf("%s: the source could knock %s later", what, time.Since(knocked))
				}
				d.WaitFor("trapped", "door=ssh", "source="+source.String()+" ", "port="+trap.String())
				waitUntilFree(l, "ssh", source)
				l.Knock(source, to, lab.Knocks...)
				if !l.Admits(source, to, 22) {
					t.Errorf("%s: the source cannot knock after the penalty", what)
				}
			}

			midway := lab.Source(10, to)
			l.Knock(midway, to, lab.TCP(4113), lab.UDP(27911), lab.TCP(5000))
			waitUntilFree(l, "ssh", midway)
			l.Knock(midway, to, lab.TCP(1840))
			if l.AdmitsAtOnce(midway, to, 22) {
				t.Error("knocks from before the trap count after the penalty")
			}

			guest := lab.Source(11, to)
			session := l.Enter(guest, to)
			l.Knock(guest, to, lab.TCP(5000))
			eventually.True(t, "the guest is trapped", func() bool { return trapped(l, "ssh", guest) })
			if err := lab.Exchange(session); err != nil {
				t.Errorf("a trap has ended a session: %v", err)
			}
			if !l.Admits(guest, to, 22) {
				t.Error("a trap has closed an open window")
			}
		})
	}
}

// The penalty counts from the last try.
func TestATrapTriedAgainProlongsThePenalty(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	d := l.Run(trapRules)
	for _, to := range []netip.Addr{lab.Server4, lab.Server6} {
		inTime := false
		for try := 1; !inTime; try++ { // again, if the machine was too slow
			source := lab.Source(try, to)
			first := time.Now()
			l.Knock(source, to, lab.TCP(5000))
			time.Sleep(trapPenalty * 6 / 10)
			second := time.Now()
			l.Knock(source, to, lab.TCP(5000))
			time.Sleep(time.Until(first.Add(trapPenalty * 13 / 10))) // the penalty of the first try has ended
			l.Knock(source, to, lab.Knocks...)
			inTime = time.Since(second) < trapPenalty*9/10
			if heard := l.AdmitsAtOnce(source, to, 22) || d.Logged("opened", "door=ssh", "source="+source.String()+" ") > 0; heard && inTime {
				t.Errorf("%s: the source tried again within the penalty, but can knock when that of the first try ends", to)
			}
		}
	}
}

// No trap is on a port on which a program listens, neither when the daemon starts nor after
// a reload. A client of such a program does not scan.
func TestNoTrapIsWhereAProgramListens(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	const rules = `door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
}`
	l.ServeTCP(22)
	path := l.WriteRules(rules)
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
					l.ServeTCP(int(p.Number))
				} else {
					l.ServeUDP(int(p.Number), netip.IPv6Unspecified())
				}
			}
			if n != 3 {
				t.Fatalf("of %s there are %d traps: too few to test anything", protocol, n)
			}
		}
		return now
	}
	predicted := func() []packet.Port { return trapsIn(t, l.RunOnServer("ruleset", "--config", path)) }
	standing := func() []packet.Port { return trapsIn(t, l.Nft("list", "table", "inet", "knockwall")) }
	none := func(when string, of []packet.Port) {
		t.Helper()
		now := standing()
		if want := predicted(); !slices.Equal(now, want) || len(now) != 64 {
			t.Errorf("%s: the traps are %v, but ruleset prints %v", when, now, want)
		}
		for _, p := range of {
			if slices.Contains(now, p) {
				t.Errorf("%s: %s is a trap although a program listens there", when, p)
			}
		}
	}
	first := listenOn(predicted())
	d := l.RunFile(path)
	none("after the start", first)

	second := listenOn(standing())
	if !slices.Contains(standing(), second[0]) {
		t.Error("the port of the new program was no trap before the reload, so this tests nothing")
	}
	l.RunOnServer("reload", "--control", d.Control)
	none("after the reload", append(first, second...))
	l.Knock(lab.Client4, lab.Server4, slices.Concat(first, second, lab.Knocks)...)
	if !l.Admits(lab.Client4, lab.Server4, 22) {
		t.Error("a client of the programs cannot knock")
	}
}

// Packets to a trap get the same answer as those to a knock port or to a port that no
// program uses, whether the host answers or not.
func TestAScanRevealsNoTraps(t *testing.T) {
	t.Parallel()
	nmap := lab.NeedsProgram(t, "nmap")
	// The knock port, the trap and the unused port are neighbours, as parseStates needs
	// them.
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
}`, []string{"-sS", "-sU"}}, // nmap waits long for answers that do not come
	} {
		for family, to := range map[string]netip.Addr{"IPv4": lab.Server4, "IPv6": lab.Server6} {
			t.Run(c.name+", "+family, func(t *testing.T) {
				t.Parallel()
				l := lab.New(t)
				l.UnlimitICMP()
				if c.script != "" {
					l.LoadNft(c.script)
				}
				d := l.Run(rules)
				for _, scan := range c.scans {
					states := nmapScan(l, t, nmap, scan, to, "3999-4001")
					knock, trap, nothing := parseStates(t, states)
					if knock != nothing || trap != nothing {
						t.Errorf("nmap %s: the knock is %s, the trap %s, their neighbour %s", scan, knock, trap, nothing)
					}
				}
				d.WaitFor("trapped", "door=ssh")
			})
		}
	}
}

// Packets to other ports pass as many rules with traps as without.
func TestTrapsAddNoRuleForOtherPackets(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	rules := func(traps int) string {
		return fmt.Sprintf("door \"ssh\" {\n ports = [22]\n sequence = [4113, \"27911/udp\", 1840]\n traps = %d\n}", traps)
	}
	rulesPassed := map[int]int{}
	for _, traps := range []int{0, 64, 1024} {
		d := l.Run(rules(traps))
		chain := l.Nft("list", "chain", "inet", "knockwall", "prerouting")
		rulesPassed[traps] = strings.Count(chain, "accept\n") + strings.Count(chain, "goto wall\n")
		if listed := len(trapsIn(t, l.Nft("list", "table", "inet", "knockwall"))); (listed > 0) != (traps > 0) {
			t.Errorf("with traps = %d there are %d", traps, listed)
		}
		lab.Must(t, d.Stop(unix.SIGTERM))
	}
	if n := rulesPassed[0]; n == 0 || rulesPassed[64] != n || rulesPassed[1024] != n {
		t.Errorf("a packet to another port passes this many rules, by the number of traps: %v", rulesPassed)
	}
}

// If 20,000 addresses try traps, they keep nobody else out and do not fill the log.
func TestAFloodOfTrappedSourcesKeepsNobodyOut(t *testing.T) {
	t.Parallel()
	const sources, newcomers = 20000, 40
	l := lab.New(t)
	l.ServeTCP(22)
	d := l.Run(strings.Replace(trapRules, `"1s"`, `"1m"`, 1))
	began := time.Now()
	socket := l.RawSocket(lab.Server4)
	defer unix.Close(socket)
	for n := range sources {
		lab.Must(t, forge.Segment{From: lab.Source(n+1, lab.Server4), To: lab.Server4, SourcePort: 40000, Port: lab.TCP(5000), Sequence: uint32(n), Flags: packet.SYN}.Send(socket))
		if n%(sources/newcomers) == 0 {
			who := lab.Source(sources+1+n, lab.Server4)
			if err := l.OnFirstSYN(who, lab.Server4, lab.Knocks...); err != nil {
				t.Errorf("after %d sources, %s: %v", n, who, err)
			}
		}
	}
	if n := strings.Count(l.Nft("list", "set", "inet", "knockwall", "trapped4"), "expires"); n != sources {
		t.Errorf("the kernel has trapped %d sources, want %d", n, sources)
	}
	if l.Knock(lab.Source(1, lab.Server4), lab.Server4, lab.Knocks...); l.AdmitsAtOnce(lab.Source(1, lab.Server4), lab.Server4, 22) {
		t.Error("the first trapped source can knock")
	}
	if n := d.Status().Doors[0].Counters.Trapped; n == 0 || n > sources {
		t.Errorf("the daemon counts %d packets to traps", n)
	}
	d.WaitFor("trapped", "door=ssh", "from many other sources")
	if n, most := d.Logged("trapped"), lab.FloodLogLines(time.Since(began)); n > most {
		t.Errorf("the log has %d lines about traps, want %d at most", n, most)
	}
	t.Logf("lines of %d trapped sources: %d", sources, d.Logged("trapped"))
}

// waitUntilFree waits until the penalty of a source ends.
func waitUntilFree(l *lab.Lab, door string, source netip.Addr) {
	l.T.Helper()
	eventually.True(l.T, source.String()+" is not trapped any more", func() bool { return !trapped(l, door, source) })
}

// trapped reports whether the kernel prevents a source from knocking at a door.
func trapped(l *lab.Lab, door string, source netip.Addr) bool {
	l.T.Helper()
	set, network := "trapped4", source
	if source.Is6() { // by default, a whole /64 is trapped
		set = "trapped6"
		prefix, err := source.Prefix(64)
		lab.Must(l.T, err)
		network = prefix.Addr()
	}
	listing := l.Nft("list", "set", "inet", "knockwall", set)
	return slices.ContainsFunc([]netip.Addr{source, network}, func(a netip.Addr) bool {
		return strings.Contains(listing, fmt.Sprintf("%s . 0x%08x", a, ruleset.DoorNumber(door)))
	})
}

// trapLine matches a port, or a range of ports, that leads to a chain for traps.
var trapLine = regexp.MustCompile(`(tcp|udp) (?:\. (\d+) :|dport (\d+-\d+)) (?:jump|goto) ssh_trap\b`)

// trapsIn returns the traps of the door "ssh" in a listing.
func trapsIn(t *testing.T, listing string) (traps []packet.Port) {
	t.Helper()
	for _, m := range trapLine.FindAllStringSubmatch(listing, -1) {
		first, last, isRange := strings.Cut(m[2]+m[3], "-")
		if !isRange {
			last = first
		}
		from, err := strconv.Atoi(first)
		lab.Must(t, err)
		to, err := strconv.Atoi(last)
		lab.Must(t, err)
		for n := from; n <= to; n++ {
			p, err := packet.ParsePort(fmt.Sprintf("%d/%s", n, m[1]))
			lab.Must(t, err)
			traps = append(traps, p)
		}
	}
	// nft does not sort the elements of a map by port.
	slices.SortFunc(traps, func(a, b packet.Port) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Number, b.Number))
	})
	return traps
}

// A packet to a trap counts even if it comes in fragments, behind extension headers,
// twice, or from neighbours in the same source prefix. A restart or a reload ends no
// penalty.
func TestWaysAroundTraps(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	const rules = `door "ssh" {
  ports    = [22]
  sequence = [7000, 8000, 9000]
  traps    = [7001]
  source_prefix = { ipv4 = 24, ipv6 = 128 }
}`
	d := l.Run(rules)
	knocks := []packet.Port{lab.TCP(7000), lab.TCP(8000), lab.TCP(9000)}
	syn := func(from, to netip.Addr) forge.Segment {
		return forge.Segment{From: from, To: to, SourcePort: 40000, Port: lab.TCP(7001), Flags: packet.SYN}
	}
	fragmented, twice, neighbour := lab.Source(1<<8, lab.Server4), lab.Source(2<<8, lab.Server4), lab.Source(3<<8, lab.Server4)
	send := func(packets ...[]byte) {
		t.Helper()
		for _, b := range packets {
			to := lab.Server4
			if b[0]>>4 == 6 {
				to = lab.Server6
			}
			socket := l.RawSocket(to)
			lab.Must(t, unix.Sendto(socket, b, 0, lab.Sockaddr(to, 0)))
			lab.Must(t, unix.Close(socket))
		}
	}
	send(fragments(syn(fragmented, lab.Server4).Bytes())...)
	l.Send(syn(twice, lab.Server4), syn(twice, lab.Server4))
	l.Knock(neighbour.Next(), lab.Server4, lab.TCP(7001))
	tried := []netip.Addr{fragmented, twice, neighbour}
	for _, header := range [][]byte{
		{unix.IPPROTO_HOPOPTS, unix.IPPROTO_TCP, 0, 1, 4, 0, 0, 0, 0}, // PadN
		{unix.IPPROTO_DSTOPTS, unix.IPPROTO_TCP, 0, 1, 4, 0, 0, 0, 0},
		{unix.IPPROTO_ROUTING, unix.IPPROTO_TCP, 0, 4, 0, 0, 0, 0, 0}, // no segments left
		{unix.IPPROTO_FRAGMENT, unix.IPPROTO_TCP, 0, 0, 0, 0, 0, 0, 9},
	} {
		from := lab.Source(1+len(tried), lab.Server6)
		b := syn(from, lab.Server6).Bytes()
		b[6], b[5] = header[0], b[5]+8 // next header, payload length
		send(slices.Insert(b, 40, header[1:]...))
		tried = append(tried, from)
	}
	honest := 9 << 8 // each in its own prefix
	knockAll := func(when string) {
		t.Helper()
		for _, source := range tried {
			to := lab.Server4
			if source.Is6() {
				to = lab.Server6
			}
			l.Knock(source, to, knocks...)
		}
		honest += 1 << 8
		lab.Must(t, l.OnFirstSYN(lab.Source(honest, lab.Server4), lab.Server4, knocks...)) // its knocks are handled last
		for _, w := range l.KernelWindows() {
			if slices.Contains(tried, w.Source.Addr()) {
				t.Errorf("%s: %s has tried the trap, but opens the door", when, w.Source)
			}
		}
	}
	knockAll("at first")
	l.RunOnServer("reload", "--control", d.Control)
	knockAll("after a reload")
	d.Stop(syscall.SIGKILL)
	l.Run(rules)
	knockAll("after a restart")
}

// fragments cuts an IPv4 packet into the smallest possible fragments.
func fragments(b []byte) (pieces [][]byte) {
	const header, size = 20, 8
	for at := header; at < len(b); at += size {
		end := min(at+size, len(b))
		piece := append(slices.Clone(b[:header]), b[at:end]...)
		place := uint16(at-header) / size
		if end < len(b) {
			place |= 0x2000 // more fragments
		}
		binary.BigEndian.PutUint16(piece[2:], uint16(len(piece)))
		binary.BigEndian.PutUint16(piece[4:], 1)
		binary.BigEndian.PutUint16(piece[6:], place)
		binary.BigEndian.PutUint16(piece[10:], 0)
		binary.BigEndian.PutUint16(piece[10:], forge.Checksum(piece[:header]))
		pieces = append(pieces, piece)
	}
	return pieces
}
