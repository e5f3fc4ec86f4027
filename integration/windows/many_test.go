package windows

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/wall"
)

// many is how many windows are open at one door:
//
//	go test ./integration/windows -v -timeout 20m -windows 1000000
var many = flag.Int("windows", 20_000, "windows that are open at one door")

// What a daemon with a million windows may take.
const (
	maxStart    = 5 * time.Second
	maxReload   = time.Second
	maxStatus   = 2 * time.Second
	maxResident = 200 // MiB
	maxRatio    = 1.2 // opening one more window, to opening the first
)

// rules is a rule file with one door that has room for so many windows.
func rules(room int) string {
	return fmt.Sprintf(`wall {
  max_windows = %d
}
share {
  group   = "prod"
  servers = ["nats://127.0.0.1:4222"]
  nkey    = "/etc/knockwall.secrets/nats.nk"
}
door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  window   = "6h"
}`, room)
}

// roomFor returns a max_windows that so many windows of a crowd leave a part of.
func roomFor(n int) int { return min(1<<20, n+n/4+1000) }

// networks is how many networks a crowd comes from. The lab's client has one of them.
const networks = 16

// crowdSource returns the n-th source of a crowd. Neighbours are of different networks.
func crowdSource(n int) packet.Source {
	network, host := n%networks, n/networks
	addr := netip.AddrFrom4([4]byte{20, byte(network), byte(host >> 8), byte(host)})
	if network == 0 {
		addr = lab.Source(host, lab.Server4)
	}
	return sourceOf(addr)
}

func sourceOf(addr netip.Addr) packet.Source {
	return packet.SourcePrefix{IPv4: 32, IPv6: 128}.Of(addr)
}

// fill opens windows as another host tells of them, from the first-th source on. It returns
// how many could not be opened.
func fill(d *lab.Daemon, first, n int, source func(n int) packet.Source) (refused int) {
	d.Lab.T.Helper()
	client := control.NewClient(d.Control)
	for from := first; from < first+n; from += 256 {
		var some []control.Told
		for i := from; i < min(first+n, from+256); i++ {
			some = append(some, control.Told{Kind: wall.ChangeOpen, Door: "ssh", Source: source(i).String(), Left: "6h"})
		}
		errs, err := client.Tell(context.Background(), "other", some)
		lab.Must(d.Lab.T, err)
		for _, text := range errs {
			if text != "" {
				refused++
			}
		}
	}
	return refused
}

// memory returns a line of the daemon's status in /proc, in MiB.
func memory(d *lab.Daemon, name string) int {
	d.Lab.T.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.Cmd.Process.Pid))
	lab.Must(d.Lab.T, err)
	_, rest, _ := strings.Cut(string(b), "\n"+name+":")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	lab.Must(d.Lab.T, err)
	return kib / 1024
}

// get asks the daemon, and returns its answer.
func get(d *lab.Daemon, path string) string {
	d.Lab.T.Helper()
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.Control)
	}}}
	defer c.CloseIdleConnections()
	r, err := c.Get("http://knockwall" + path)
	lab.Must(d.Lab.T, err)
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	lab.Must(d.Lab.T, err)
	if r.StatusCode != http.StatusOK {
		d.Lab.T.Fatalf("GET %s: %s", path, r.Status)
	}
	return string(text)
}

// within does something, and fails the test if it takes longer than most.
func within(t *testing.T, most time.Duration, what string, do func()) {
	t.Helper()
	began := time.Now()
	do()
	took := time.Since(began)
	t.Logf("%-50s %8.3f s", what, took.Seconds())
	if took > most {
		t.Errorf("%s takes %s, want at most %s", what, took, most)
	}
}

// resident checks the daemon's memory.
func resident(d *lab.Daemon, when string) {
	t := d.Lab.T
	t.Helper()
	now := memory(d, "VmRSS")
	t.Logf("%-50s %4d MiB, at most %d so far", "resident "+when, now, memory(d, "VmHWM"))
	if now > maxResident {
		t.Errorf("the daemon has %d MiB %s, want at most %d", now, when, maxResident)
	}
}

// open returns how many windows the door has.
func open(d *lab.Daemon) int {
	d.Lab.T.Helper()
	s, err := control.NewClient(d.Control).Status(context.Background(), wall.WindowQuery{Limit: 1})
	lab.Must(d.Lab.T, err)
	return s.Doors[0].OpenWindows
}

// A daemon with very many windows restarts, reloads and answers soon, is small, and opens
// one more window as fast as the first.
func TestManyWindows(t *testing.T) {
	file := rules(roomFor(*many))
	other := lab.New(t).Run(file) // has none
	l := lab.New(t)
	d := l.Run(file)
	resident(d, "without windows")
	began := time.Now()
	if refused := fill(d, 0, *many, crowdSource); refused > 0 {
		t.Fatalf("%d windows were refused", refused)
	}
	t.Logf("%-50s %8.3f s", fmt.Sprintf("opening %d windows", *many), time.Since(began).Seconds())
	resident(d, "with windows")

	within(t, maxStart, "restart", func() {
		lab.Must(t, d.Stop(syscall.SIGTERM))
		d = l.Run(file)
	})
	if n := open(d); n != *many {
		t.Errorf("after a restart %d windows are open, want %d", n, *many)
	}
	resident(d, "after a restart")
	client := control.NewClient(d.Control)
	for _, what := range []string{"reload", "reload again"} {
		within(t, maxReload, what, func() {
			_, err := client.Reload(context.Background(), "")
			lab.Must(t, err)
		})
	}
	if n := open(d); n != *many {
		t.Errorf("after a reload %d windows are open, want %d", n, *many)
	}
	resident(d, "after a reload")
	for _, query := range []string{"limit=100", "limit=100&door=ssh", "limit=100&source=20.3.0.0/24", "limit=10000"} {
		within(t, maxStatus, "GET /v1/status?"+query, func() { get(d, "/v1/status?"+query) })
	}
	within(t, maxStatus, "GET /metrics", func() { get(d, "/metrics") })
	within(t, maxStatus, "GET /v1/explain/20.3.0.9", func() { get(d, "/v1/explain/20.3.0.9") })
	resident(d, "after these answers")
	within(t, maxStatus, "GET /v1/status", func() { get(d, "/v1/status") })
	resident(d, "after as many windows as fit into one answer")
	began = time.Now()
	all, err := client.Status(context.Background(), wall.WindowQuery{})
	lab.Must(t, err)
	t.Logf("%-50s %8.3f s", "all windows, page after page", time.Since(began).Seconds())
	if len(all.Windows) != *many {
		t.Errorf("the pages have %d windows, want %d", len(all.Windows), *many)
	}
	resident(d, "after these pages")
	opening(t, other, d)
}

// opening compares how long it takes to open a window of one more source, at a door with
// none and at one with many. Other load on the machine disturbs one try or another.
func opening(t *testing.T, none, many *lab.Daemon) {
	const rounds, each = 3, 200
	var ratio float64
	for round := range rounds {
		one := func(d *lab.Daemon, n int) time.Duration {
			began := time.Now()
			_, err := control.NewClient(d.Control).Open(context.Background(), "ssh", fmt.Sprintf("100.%d.%d.7", round, n), "")
			lab.Must(t, err)
			return time.Since(began)
		}
		var first, more []time.Duration
		for i := range each {
			first, more = append(first, one(none, i)), append(more, one(many, i))
		}
		slices.Sort(first)
		slices.Sort(more)
		ratio = float64(more[each/2]) / float64(first[each/2])
		t.Logf("%-50s %d µs, and %d µs with none: ratio %.2f", "opening one more, median", more[each/2].Microseconds(), first[each/2].Microseconds(), ratio)
		if ratio <= maxRatio {
			return
		}
	}
	t.Errorf("opening one more window takes %.2f times as long as opening the first, want at most %.2f", ratio, maxRatio)
}

// A daemon that is killed leaves more windows than the next one can read in a moment. All of
// them admit, and the status says if some are not known.
func TestManyWindowsOfAKilledDaemon(t *testing.T) {
	l := lab.New(t)
	l.ServeTCP(22)
	file := rules(roomFor(*many))
	d := l.Run(file)
	if refused := fill(d, 0, *many, crowdSource); refused > 0 {
		t.Fatalf("%d windows were refused", refused)
	}
	within(t, maxStart, "restart after it was killed", func() {
		_ = d.Stop(syscall.SIGKILL) // its error says so
		d = l.Run(file)
	})
	s, err := control.NewClient(d.Control).Status(context.Background(), wall.WindowQuery{Limit: 1})
	lab.Must(t, err)
	known := s.Doors[0].OpenWindows
	t.Logf("%-50s %8d", "windows that were read", known)
	said := strings.Contains(fmt.Sprint(s.Findings), "Those that were not read admit until they end")
	if known > *many || (known < *many) != said {
		t.Errorf("%d windows of %d are known, and the findings are %+v", known, *many, s.Findings)
	}
	for n := 0; n < *many; n += *many / 10 / networks * networks {
		guest := crowdSource(n).Addr()
		if !l.Admits(guest, lab.Server4, 22) {
			t.Errorf("%s is not admitted", guest)
		}
	}
}
