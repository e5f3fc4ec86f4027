package traps

import (
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/packet"
)

// Ports beside the knocks 4113 and 27911/udp. They are traps unless a service is there.
var (
	publishedTraps = []packet.Port{lab.TCP(4114), lab.UDP(27912)}
	otherTraps     = []packet.Port{lab.TCP(4112), lab.UDP(27910)}
)

// publishing is a way to lead a port of the server to the host behind it.
type publishing struct {
	name    string
	publish func(l *lab.Lab)
}

var publishings = []publishing{
	{"nft", func(l *lab.Lab) {
		l.LoadNft(fmt.Sprintf(`table inet nat {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		fib daddr type local tcp dport 4114 dnat ip to %[1]s:80
		fib daddr type local tcp dport 4114 dnat ip6 to [%[2]s]:80
		fib daddr type local udp dport 27912 dnat ip to %[1]s:80
		fib daddr type local udp dport 27912 dnat ip6 to [%[2]s]:80
	}
}`, lab.Inside, lab.Inside6))
	}},
	{"legacy iptables", func(l *lab.Lab) {
		for program, to := range map[string]string{"iptables-legacy": lab.Inside.String(), "ip6tables-legacy": "[" + lab.Inside6.String() + "]"} {
			for _, p := range publishedTraps {
				cmd := exec.Command(lab.NeedsProgram(l.T, program), "-t", "nat", "-A", "PREROUTING", "-p", p.Protocol.String(),
					"-m", "addrtype", "--dst-type", "LOCAL", "-m", p.Protocol.String(), "--dport", fmt.Sprint(p.Number),
					"-j", "DNAT", "--to-destination", to+":80")
				cmd.Env = append(cmd.Environ(), "XTABLES_LOCKFILE="+filepath.Join(l.Folder, "xtables.lock")) // the default lock file belongs to root
				said := &lab.Output{}
				cmd.Stderr = said
				lab.Must(l.T, lab.StartOn(l.Server, cmd))
				if err := cmd.Wait(); err != nil {
					l.T.Fatalf("%s: %v\n%s", program, err, said)
				}
			}
		}
	}},
}

// A port that a NAT rule leads elsewhere, as Docker publishes ports without its proxy, is
// no trap: its visitors do not search for knocks. Sources that try other ports do.
func TestVisitorsOfWhatNATPublishesAreNotTrapped(t *testing.T) {
	lab.NeedsProgram(t, "nft")
	lab.NeedsProgram(t, "iptables-legacy")
	const rules = `door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
}`
	for _, p := range publishings {
		for _, c := range []struct {
			name  string
			first bool                             // the port is published before the daemon starts
			then  func(l *lab.Lab, control string) // what makes the daemon look, if it does not by itself
		}{
			{"before the start", true, nil},
			{"before a reload", false, func(l *lab.Lab, control string) { l.RunOnServer("reload", "--control", control) }},
			{"while the daemon runs", false, nil},
		} {
			t.Run(p.name+", "+c.name, func(t *testing.T) {
				t.Parallel()
				l := lab.New(t)
				l.ServeTCP(22)
				l.AddInside(80)
				if c.first {
					p.publish(l)
				}
				d := l.Run(rules)
				sources := 0
				// tries lets a new source send to a port and then knock.
				tries := func(to netip.Addr, port packet.Port) (getsIn bool) {
					sources++
					source := lab.Source(sources, to)
					l.Knock(source, to, port)
					l.Knock(source, to, lab.Knocks...)
					return l.AdmitsAtOnce(source, to, 22)
				}
				if !c.first {
					for _, port := range publishedTraps {
						if tries(lab.Server4, port) {
							t.Fatalf("%s is no trap though nothing is there, so that this tests nothing", port)
						}
					}
					p.publish(l)
				}
				if c.then != nil {
					c.then(l, d.Control)
				}
				for _, to := range []netip.Addr{lab.Server4, lab.Server6} {
					if !l.Admits(lab.Source(1000, to), to, 4114) {
						t.Fatalf("what is published at %s is out of reach, so that this tests nothing", to)
					}
					for _, port := range publishedTraps {
						if c.first || c.then != nil {
							if !tries(to, port) {
								t.Errorf("%s: who visits %s is trapped", to, port)
							}
						} else {
							eventually.True(t, fmt.Sprintf("%s: who visits %s is not trapped", to, port), func() bool { return tries(to, port) })
						}
					}
					for _, port := range otherTraps {
						if tries(to, port) {
							t.Errorf("%s: who tries %s is not trapped", to, port)
						}
					}
				}
			})
		}
	}
}
