package traps

import (
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

// scans are the ways in which nmap finds out what is behind a port.
var scans = []string{"-sS", "-sA", "-sF", "-sN", "-sX", "-sM", "-sW", "-sU"}

// No scan distinguishes a closed door, with a program behind it, from its neighbouring
// ports, which no program uses.
func TestScansLearnNothing(t *testing.T) {
	t.Parallel()
	nmap := lab.NeedsProgram(t, "nmap")
	const rules = `door "ssh" {
  ports    = ["4000/tcp", "4000/udp"]
  sequence = [4113, "27911/udp", 1840]
  closed   = %q
}`
	for _, c := range []struct {
		name, closed string
		// script loads another table of the host.
		script string
	}{
		{name: "a door that rejects, on a host without another firewall", closed: "reject"},
		{name: "a door that drops, behind a table that drops everything else", closed: "drop", script: `
table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		iif "lo" accept
		ct state established,related accept
		meta l4proto { icmp, ipv6-icmp } accept
		tcp dport 4000 accept
		udp dport 4000 accept
	}
}`},
	} {
		for family, to := range map[string]netip.Addr{"IPv4": lab.Server4, "IPv6": lab.Server6} {
			t.Run(c.name+", "+family, func(t *testing.T) {
				t.Parallel()
				l := lab.New(t)
				l.ServeTCP(4000)
				l.ServeUDP(4000, to)
				if c.script != "" {
					l.LoadNft(c.script)
				}
				// By default the kernel sends one ICMP error a second to a host, so nmap
				// would see which port it tried first.
				l.UnlimitICMP()
				found := func() map[string]string {
					t.Helper()
					states := map[string]string{}
					for _, scan := range scans {
						out := nmapScan(l, t, nmap, scan, to, "3999-4001")
						states[scan] = out
					}
					return states
				}
				before := found()
				d := l.Run(fmt.Sprintf(rules, c.closed))
				for scan, states := range found() {
					neighbour, door, other := parseStates(t, states)
					if neighbour != other {
						t.Fatalf("nmap %s: the neighbours differ, so that this tests nothing:\n%s", scan, states)
					}
					if door != neighbour {
						t.Errorf("nmap %s: the door is %s, its neighbours are %s", scan, door, neighbour)
					}
				}
				// Without the wall, some scans do distinguish the ports.
				if a, b, _ := parseStates(t, before["-sS"]); a == b {
					t.Errorf("nmap -sS does not distinguish an open port from a closed one:\n%s", before["-sS"])
				}
				if d.Status().Doors[0].Counters.KernelRefused == 0 {
					t.Error("the kernel has refused nothing")
				}
			})
		}
	}
}

func nmapScan(l *lab.Lab, t *testing.T, nmap, kind string, to netip.Addr, ports string) string {
	t.Helper()
	arguments := []string{"-n", "-Pn", "--disable-arp-ping", "--max-retries", "1", "--host-timeout", "60s", kind, "-p", ports}
	if to.Is6() {
		arguments = append(arguments, "-6")
	}
	cmd := exec.Command(nmap, append(arguments, to.String())...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	lab.Must(t, lab.StartOn(l.Client, cmd))
	if err := cmd.Wait(); err != nil {
		t.Fatalf("nmap %s: %v\n%s", kind, err, &out)
	}
	return out.String()
}

var stateLine = regexp.MustCompile(`(?m)^(3999|4000|4001)/(?:tcp|udp) +(\S+)`)

// parseStates returns the states of the ports 3999, 4000 and 4001.
func parseStates(t *testing.T, out string) (neighbour, door, other string) {
	t.Helper()
	states := map[string]string{}
	for _, m := range stateLine.FindAllStringSubmatch(out, -1) {
		states[m[1]] = m[2]
	}
	if len(states) != 3 {
		// nmap summarizes ports with the same state.
		if m := regexp.MustCompile(`All 3 scanned ports on .* are in ignored states.*\n.*?(\d+) (\S+) (?:tcp|udp) ports`).FindStringSubmatch(out); m != nil && m[1] == "3" {
			return m[2], m[2], m[2]
		}
		t.Fatalf("nmap's report has not three ports:\n%s", out)
	}
	return states["3999"], states["4000"], states["4001"]
}
