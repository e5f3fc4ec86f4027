package traps

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/packet"
)

// invitingDoors are doors whose knocks some scan sends in the right order. Only traps
// prevent it. inviting names a scan that always does.
var invitingDoors = []struct {
	name, rules string
	knocks      []packet.Port
	udp         bool // some knocks are UDP
}{
	{"rising", `sequence = [7000, 8000, 9000]`, []packet.Port{lab.TCP(7000), lab.TCP(8000), lab.TCP(9000)}, false},
	{"falling", `sequence = [9000, 8000, 7000]`, []packet.Port{lab.TCP(9000), lab.TCP(8000), lab.TCP(7000)}, false},
	{"neighbours", `sequence = [7000, 7001, 7002]`, []packet.Port{lab.TCP(7000), lab.TCP(7001), lab.TCP(7002)}, false},
	{"unordered", `sequence = [8000, 7000, 9000]`, []packet.Port{lab.TCP(8000), lab.TCP(7000), lab.TCP(9000)}, false},
	{"with UDP", `sequence = [7000, "8000/udp", 9000]`, []packet.Port{lab.TCP(7000), lab.UDP(8000), lab.TCP(9000)}, true},
	{"closing", "sequence = [7000, 8000, 9000]\n close_sequence = [9000, 8000, 7000]", []packet.Port{lab.TCP(7000), lab.TCP(8000), lab.TCP(9000)}, false},
}

// Every scan tries the ports around the knocks. A slow scan takes this long for them: much
// less than seq_timeout, which is 5 s, because otherwise the timeout would stop it. The
// controls show that it does not.
const (
	firstAround = 6900
	lastAround  = 9100
	slowly      = 2 * time.Second
)

type scanOrder string

const (
	ascending  scanOrder = "ascending"
	descending scanOrder = "descending"
	shuffled   scanOrder = "in random order"
)

// No scan opens a door, in whatever order. The kernel traps it before it has sent all
// knocks, or its other packets reset its attempt. During each scan a client that knocks
// gets in on the first SYN.
func TestNoScanOpensADoor(t *testing.T) {
	t.Parallel()
	nmap := lab.NeedsProgram(t, "nmap")
	for _, door := range invitingDoors {
		t.Run(door.name, func(t *testing.T) {
			t.Parallel()
			s := newScans(t, nmap, door.knocks, door.udp)
			// At the end even the first scans must still be in the set.
			rules := "door \"ssh\" {\n ports = [22]\n window = \"10m\"\n penalty = \"10m\"\n penalty_prefix = { ipv6 = 128 }\n " + door.rules + "\n"
			d := s.lab.Run(rules + "}")
			s.all()
			s.check(d)
		})
	}
}

// all scans in every way: 17 ways, and 2 more at a door with UDP knocks. For six doors that
// makes 104 scans.
func (s *scanners) all() {
	families, paces := []netip.Addr{lab.Server4, lab.Server6}, []time.Duration{slowly, 0}
	if testing.Short() {
		families, paces = families[:1], paces[1:]
	}
	for _, pace := range paces {
		for _, to := range families {
			for _, order := range []scanOrder{ascending, descending, shuffled} {
				s.raw(to, order, pace)
			}
		}
	}
	s.nmap(lab.Server4, "-sS", "-T4", "-r")
	if !testing.Short() {
		s.nmap(lab.Server4, "-sS", "-T3")
		s.nmap(lab.Server4, "-sS", "-T5")
		s.nmap(lab.Server6, "-sS", "-T5", "-r")
		s.nmap(lab.Server6, "-sS", "-T4")
	}
	if s.udp {
		s.nmap(lab.Server4, "-sU", "-T4", "-r")
		s.nmap(lab.Server6, "-sU", "-T5")
	}
	s.running.Wait()
}

// scanners scan one server, each from its own source, while an honest client knocks.
type scanners struct {
	t       *testing.T
	lab     *lab.Lab
	program string // nmap
	knocks  []packet.Port
	udp     bool
	last    int // source
	sources []netip.Addr
	honest  []netip.Addr
	names   map[netip.Addr]string
	running sync.WaitGroup
}

// countArrivals is a table that counts the packets of each source.
const countArrivals = `table inet arrivals {
	set from4 { type ipv4_addr; size 65536; flags dynamic; counter; }
	set from6 { type ipv6_addr; size 65536; flags dynamic; counter; }
	chain count {
		type filter hook prerouting priority raw;
		update @from4 { ip saddr }
		update @from6 { ip6 saddr }
	}
}`

func newScans(t *testing.T, nmap string, knocks []packet.Port, udp bool) *scanners {
	s := &scanners{t: t, lab: lab.New(t), program: nmap, knocks: knocks, udp: udp, names: map[netip.Addr]string{}}
	s.lab.ServeTCP(22)
	s.lab.UnlimitICMP()
	s.lab.LoadNft(countArrivals)
	return s
}

// source returns an address that has not sent anything yet.
func (s *scanners) source(to netip.Addr, name string) netip.Addr {
	s.last++
	a := lab.Source(s.last, to)
	s.names[a] = name
	return a
}

// begin returns the addresses of a scan and of its honest client.
func (s *scanners) begin(to netip.Addr, name string) (scan, client netip.Addr) {
	scan, client = s.source(to, name), s.source(to, "the client during "+name)
	s.sources, s.honest = append(s.sources, scan), append(s.honest, client)
	return scan, client
}

// raw scans with forged packets: as fast as possible, or so that the ports around the
// knocks take a given time.
func (s *scanners) raw(to netip.Addr, order scanOrder, takes time.Duration) {
	s.t.Helper()
	name := fmt.Sprintf("raw, to %s, %s, over %s", to, order, takes)
	from, client := s.begin(to, name)
	socket := s.lab.RawSocket(to)
	around, beyond := s.ports(order)
	var sent atomic.Int64
	under, in := make(chan struct{}), make(chan struct{})
	s.running.Go(func() {
		defer close(in)
		<-under
		before := sent.Load()
		if err := s.clientDuring(client, to, func() bool { return sent.Load() > before }, nil); err != nil {
			s.t.Errorf("%s: the honest client: %v", name, err)
		}
		if after := sent.Load(); before == 0 || after == before {
			s.t.Errorf("%s: the client began after %d packets and was in after %d, not during the scan", name, before, after)
		}
	})
	s.running.Go(func() {
		defer unix.Close(socket)
		began := time.Now()
		// The scan goes on with other ports until the client is in, so that it does not end
		// before the client begins.
		for i, p := range slices.Concat(around, beyond) {
			if i < len(around) {
				time.Sleep(time.Until(began.Add(takes * time.Duration(i) / time.Duration(len(around)))))
			} else if closed(in) {
				return
			}
			syn := forge.Segment{From: from, To: to, SourcePort: 40000, Port: p, Sequence: uint32(i), Flags: packet.SYN}
			if err := syn.Send(socket); err != nil {
				s.t.Errorf("%s: %v", name, err)
			}
			if sent.Add(1) == int64(len(around)/4) {
				close(under)
			}
		}
	})
	if takes == 0 {
		s.running.Wait() // at full speed, one at a time
	}
}

// closed reports whether a channel is closed. Nothing is ever sent on it.
func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// clientDuring sends all knocks but the last one, waits until the scan has gone on, sends
// the last one, and connects. That must succeed on the first SYN. If the scan ends before
// it goes on, clientDuring returns an error.
func (s *scanners) clientDuring(from, to netip.Addr, hasGoneOn func() bool, ended <-chan struct{}) error {
	last := len(s.knocks) - 1
	if err := s.lab.Client.Do(func() error {
		for _, p := range s.knocks[:last] {
			if err := lab.SendKnock(from, to, p); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for end := time.Now().Add(lab.Deadline); !hasGoneOn(); time.Sleep(100 * time.Microsecond) {
		if closed(ended) || time.Now().After(end) {
			return errScanOver
		}
	}
	return s.lab.OnFirstSYN(from, to, s.knocks[last])
}

// ports returns the ports around the knocks in the order of a scan, and the ports that the
// scan tries afterwards.
func (s *scanners) ports(order scanOrder) (around, beyond []packet.Port) {
	add := func(ports []packet.Port, number int) []packet.Port {
		if s.udp {
			ports = append(ports, lab.UDP(uint16(number)))
		}
		return append(ports, lab.TCP(uint16(number)))
	}
	for n := firstAround; n <= lastAround; n++ {
		around = add(around, n)
	}
	for n := lastAround + 1; n <= 65535; n++ {
		beyond = add(beyond, n)
	}
	switch order {
	case descending:
		slices.Reverse(around)
		slices.Reverse(beyond)
	case shuffled:
		rand.Shuffle(len(around), func(i, j int) { around[i], around[j] = around[j], around[i] })
	}
	return around, beyond
}

// nmap scans with nmap. If the scan ends before the client begins, as on a slow machine, it
// tries again more slowly.
func (s *scanners) nmap(to netip.Addr, arguments ...string) {
	s.t.Helper()
	const fast, slow = 4000, 250 // packets a second
	name := "nmap " + strings.Join(arguments, " ") + " to " + to.String()
	for rate := fast; ; rate /= 4 {
		err := s.nmapAt(rate, name, to, arguments)
		if err == nil {
			return
		}
		if !errors.Is(err, errScanOver) || rate/4 < slow {
			s.t.Errorf("%s, %d packets a second: the honest client: %v", name, rate, err)
			return
		}
		s.honest = s.honest[:len(s.honest)-1] // it has not connected
	}
}

// errScanOver means that a scan ended before its client came.
var errScanOver = errors.New("the scan does not go on")

func (s *scanners) nmapAt(rate int, name string, to netip.Addr, arguments []string) error {
	s.t.Helper()
	from, client := s.begin(to, name)
	arguments = append(slices.Clone(arguments), "-n", "-Pn", "--disable-arp-ping", "--send-ip", "--max-retries", "0", "--max-rate", strconv.Itoa(rate),
		"-e", "b"+strings.TrimPrefix(s.lab.ServerLink, "a"), "-S", from.String(), "-p", fmt.Sprintf("%d-%d", firstAround, lastAround))
	if to.Is6() {
		arguments = append(arguments, "-6")
	}
	cmd := exec.Command(s.program, append(arguments, to.String())...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	lab.Must(s.t, lab.StartOn(s.lab.Client, cmd))
	ended := make(chan struct{})
	go func() {
		if err := cmd.Wait(); err != nil {
			s.t.Errorf("%s: %v\n%s", name, err, &out)
		}
		close(ended)
	}()
	defer func() { <-ended }()
	eventually.True(s.t, name+" has begun", func() bool { return s.arrived(from) > 0 })
	before := s.arrived(from)
	return s.clientDuring(client, to, func() bool { return s.arrived(from) > before }, ended)
}

var arrival = regexp.MustCompile(`([0-9a-f.:]+) counter packets (\d+)`)

// arrived returns how many packets of a source have arrived at the server.
func (s *scanners) arrived(source netip.Addr) int {
	s.t.Helper()
	set := "from4"
	if source.Is6() {
		set = "from6"
	}
	for _, m := range arrival.FindAllStringSubmatch(s.lab.Nft("list", "set", "inet", "arrivals", set), -1) {
		if m[1] == source.String() {
			n, _ := strconv.Atoi(m[2])
			return n
		}
	}
	return 0
}

// check fails the test unless all scans have arrived and opened nothing, according to the
// kernel and to the daemon, and all honest clients have a window.
func (s *scanners) check(d *lab.Daemon) {
	s.t.Helper()
	// The daemon handles knocks in order. When it has handled these, it has handled all.
	for _, to := range []netip.Addr{lab.Server4, lab.Server6} {
		last := s.source(to, "the client after all scans")
		s.honest = append(s.honest, last)
		if err := s.lab.OnFirstSYN(last, to, s.knocks...); err != nil {
			s.t.Errorf("%s: %v", s.names[last], err)
		}
	}
	open := map[netip.Addr]bool{}
	for _, w := range s.lab.KernelWindows() {
		open[w.Source.Addr()] = true
	}
	for _, source := range s.sources {
		if open[source] || d.Logged("opened", "source="+source.String()+" ") > 0 {
			s.t.Errorf("the scan %s opens the door", s.names[source])
		}
		if n := s.arrived(source); n < lastAround-firstAround {
			s.t.Errorf("only %[2]d packets of the scan %[1]s have arrived", s.names[source], n)
		}
		if !trapped(s.lab, "ssh", source) {
			s.t.Errorf("the scan %s is not trapped", s.names[source])
		}
	}
	for _, source := range s.honest {
		if !open[source] || d.Logged("opened", "source="+source.String()+" ") != 1 {
			s.t.Errorf("%s: the client does not have one window that was opened once", s.names[source])
		}
	}
	if opened := d.Status().Doors[0].Counters.Opened; opened != uint64(len(s.honest)) {
		s.t.Errorf("the door was opened %d times, want %d, for the honest clients", opened, len(s.honest))
	}
	s.t.Logf("scans: %d", len(s.sources))
}
