package doctor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/netlab"
)

const sshDoor = `door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
}
`

// examine runs doctor on the server with rules, and checks that its exit code reports
// errors.
func examine(l *lab.Lab, rules string) doctor.Report {
	l.T.Helper()
	path := filepath.Join(l.Folder, "examined.hcl")
	lab.WriteFile(l.T, path, rules, 0o600)
	cmd := lab.Knockwall("doctor", "--json", "--config", path)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	lab.Must(l.T, lab.StartOn(l.Server, cmd))
	err := cmd.Wait()
	var r doctor.Report
	if jsonErr := json.Unmarshal(stdout.Bytes(), &r); jsonErr != nil {
		l.T.Fatalf("doctor: %v, %v: %s%s", err, jsonErr, &stdout, &stderr)
	}
	// Only root of the initial user namespace may list programs that choose sockets.
	r.Unmade = slices.DeleteFunc(r.Unmade, func(u doctor.Unmade) bool { return strings.Contains(u.Why, "listing BPF programs") })
	if failed := err != nil; failed != r.HasErrors() {
		l.T.Errorf("doctor ends with %v, and finds %+v", err, r.Findings)
	}
	return r
}

// finds waits until doctor has a finding with all of the words, and returns it.
func finds(l *lab.Lab, rules string, severity doctor.Severity, words ...string) (found doctor.Finding) {
	l.T.Helper()
	var last doctor.Report
	for end := time.Now().Add(lab.Deadline / 4); time.Now().Before(end); {
		last = examine(l, rules)
		for _, f := range last.Findings {
			if f.Severity == severity && hasAll(f.Problem+" "+f.Cure, words) {
				return f
			}
		}
	}
	l.T.Fatalf("the doctor does not find %s %q, but %+v", severity, words, last)
	return found
}

func hasAll(text string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

// dialFrom connects from a host.
func dialFrom(l *lab.Lab, h *netlab.Host, address string) (conn net.Conn, err error) {
	err = h.Do(func() (err error) {
		conn, err = net.Dial("tcp", address)
		return err
	})
	return conn, err
}

// shell runs a script on the server.
func shell(l *lab.Lab, script string) {
	l.T.Helper()
	cmd := exec.Command("sh", "-ec", script)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	lab.Must(l.T, lab.StartOn(l.Server, cmd))
	if err := cmd.Wait(); err != nil {
		l.T.Fatalf("%s: %v: %s", script, err, &out)
	}
}

// On a host without problems doctor finds nothing, and takes little time.
func TestTheDoctorFindsNothingOnAPlainHost(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "nft")
	l := lab.New(t)
	l.ServeTCP(22)
	// A usual firewall.
	shell(l, `nft -f - <<'END'
table inet filter {
  chain input {
    type filter hook input priority filter; policy drop;
    ct state vmap { established : accept, related : accept, invalid : drop }
    iif lo accept
    meta l4proto { icmp, icmpv6 } accept
    tcp dport { 22, 80, 443 } accept
  }
}
table ip nat {
  chain prerouting {
    type nat hook prerouting priority dstnat;
    tcp dport 8080 dnat to 198.51.100.2:80
  }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    masquerade
  }
}
END`)
	check := func(when string) {
		t.Helper()
		var r doctor.Report
		fastest, start := lab.Deadline, lab.Deadline
		for range 5 { // the machine may be busy
			began := time.Now()
			r = examine(l, sshDoor)
			fastest = min(fastest, time.Since(began))
			began = time.Now()
			l.RunOnServer("version")
			start = min(start, time.Since(began))
		}
		// doctor may take half a second, and the program has to start. A busy machine shows in
		// how long that takes.
		if fastest > max(time.Second, 20*start) {
			t.Errorf("%s: the doctor takes %s, and only to start the program takes %s", when, fastest, start)
		}
		if len(r.Findings) > 0 {
			t.Errorf("%s: the doctor finds %+v", when, r.Findings)
		}
	}
	check("before the wall")
	d := l.Run(sshDoor)
	check("behind the wall")
	if found := d.Status().Findings; len(found) > 0 {
		t.Errorf("the daemon finds %+v", found)
	}
}

// doctor finds NAT rules that lead from elsewhere to a guarded service, whatever program
// added them.
func TestTheDoctorFindsNATThatLeadsAroundADoor(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "nft")
	const inside = `door "inside" {
  ports    = [22]
  to       = ["198.51.100.2"]
  sequence = [4113, "27911/udp", 1840]
}
`
	const published = `door "web" {
  ports    = [8080]
  sequence = [4113, "27911/udp", 1840]
}
`
	nft := func(rules string) string {
		return "nft -f - <<'END'\ntable ip nat {\n  chain prerouting {\n    type nat hook prerouting priority dstnat;\n    " + rules + "\n  }\n}\nEND\n"
	}
	for _, test := range []struct {
		name, needs, script, rules string
		severity                   doctor.Severity
		words                      []string
	}{
		{"a redirection", "nft", nft("tcp dport 2222 redirect to :22"), sshDoor, doctor.Warning, []string{"reached by 2222/tcp", "22/tcp", "table ip nat, chain prerouting"}},
		{"of a range", "nft", nft("tcp dport 2200-2300 redirect to :22"), sshDoor, doctor.Warning, []string{"reached by 2200-2300/tcp"}},
		{"of a set", "nft", nft("tcp dport { 2222, 2300-2301 } redirect to :22"), sshDoor, doctor.Warning, []string{"reached by 2222/tcp, 2300-2301/tcp"}},
		{"of a map", "nft", nft("meta l4proto tcp redirect to :tcp dport map { 2222 : 22, 80 : 8080 }"), sshDoor, doctor.Warning, []string{"reached by 2222/tcp:"}},
		{"to loopback", "nft", nft("tcp dport 2222 dnat to 127.0.0.1:22"), sshDoor, doctor.Warning, []string{"reached by 2222/tcp"}},
		{"to another host", "nft", nft("tcp dport 2222 dnat to 198.51.100.2:22"), inside, doctor.Error, []string{"reached by 2222/tcp, without a knock", "198.51.100.2"}},
		{"to another host, the same port", "nft", nft("tcp dport 22 dnat to 198.51.100.2"), inside, doctor.Error, []string{"reached by 22/tcp, without a knock"}},
		{"by a map of hosts", "nft", nft("dnat ip to tcp dport map { 2222 : 198.51.100.2 . 22, 23 : 198.51.100.3 . 23 }"), inside, doctor.Error, []string{"reached by 2222/tcp, without a knock"}},
		{"by a chain of verdicts", "nft", "nft -f - <<'END'\ntable ip nat {\n  chain to_inside {\n    meta l4proto tcp dnat to 198.51.100.2:22\n  }\n  chain prerouting {\n    type nat hook prerouting priority dstnat;\n    tcp dport vmap { 2222 : jump to_inside, 23 : accept }\n  }\n}\nEND\n",
			inside, doctor.Error, []string{"reached by 2222/tcp, without a knock", "chain to_inside"}},
		{"a second publication", "nft", nft("tcp dport 8080 dnat to 172.17.0.2:80\ntcp dport 9090 dnat to 172.17.0.2:80"), published, doctor.Error, []string{"reached by 9090/tcp, without a knock", "172.17.0.2"}},
		{"iptables", "iptables-nft", "iptables-nft -t nat -A PREROUTING -p tcp --dport 2222 -j DNAT --to-destination 198.51.100.2:22", inside, doctor.Error, []string{"reached by 2222/tcp, without a knock"}},
		{"iptables, several ports", "iptables-nft", "iptables-nft -t nat -A PREROUTING -p tcp -m multiport --dports 2222,2300:2301 -j REDIRECT --to-ports 22", sshDoor, doctor.Warning, []string{"reached by 2222/tcp, 2300-2301/tcp"}},
		{"legacy iptables", "iptables-legacy", "iptables-legacy -t nat -A PREROUTING -p tcp --dport 2222 -j DNAT --to-destination 198.51.100.2:22", inside, doctor.Error, []string{"reached by 2222/tcp, without a knock", "iptables-legacy"}},
		{"legacy iptables, a chain", "iptables-legacy", "iptables-legacy -t nat -N X; iptables-legacy -t nat -A X -p tcp -m tcp --dport 2222 -j REDIRECT --to-ports 22; iptables-legacy -t nat -A PREROUTING -j X", sshDoor, doctor.Warning, []string{"reached by 2222/tcp"}},
		{"legacy ip6tables", "ip6tables-legacy", "ip6tables-legacy -t nat -A PREROUTING -p tcp --dport 2222 -j REDIRECT --to-ports 22", sshDoor, doctor.Warning, []string{"reached by 2222/tcp", "ip6tables-legacy"}},
		{"a transparent proxy", "nft", "nft -f - <<'END'\ntable ip proxy {\n  chain prerouting {\n    type filter hook prerouting priority mangle;\n    tcp dport 2222 tproxy to :22 accept\n  }\n}\nEND\n",
			sshDoor, doctor.Error, []string{"reached by 2222/tcp, without a knock"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			lab.NeedsProgram(t, test.needs)
			l := lab.New(t)
			shell(l, "export XTABLES_LOCKFILE="+filepath.Join(l.Folder, "lock")+"\n"+test.script)
			finds(l, test.rules, test.severity, test.words...)
		})
	}
	t.Run("none of this", func(t *testing.T) {
		l := lab.New(t)
		l.ServeTCP(22)
		shell(l, nft("tcp dport 80 redirect to :8080\ntcp dport 2022 dnat to 198.51.100.2:22\nip protocol icmp redirect"))
		if r := examine(l, sshDoor); len(r.Findings)+len(r.Unmade) > 0 {
			t.Errorf("the doctor finds %+v", r)
		}
	})
	t.Run("what is not understood", func(t *testing.T) {
		l := lab.New(t)
		l.ServeTCP(22)
		shell(l, nft("dnat ip to ip saddr . tcp dport map { 192.0.2.2 . 2222 : 198.51.100.2 . 22 }"))
		if r := examine(l, inside); len(r.Unmade) == 0 || !strings.Contains(fmt.Sprint(r.Unmade), "does not know where it leads") {
			t.Errorf("the doctor does not say what it has not understood: %+v", r)
		}
	})
}

// The daemon's status contains ways around its doors.
func TestWaysAroundADoorAreInItsStatus(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "nft")
	l := lab.New(t)
	l.ServeTCP(22)
	shell(l, "nft add table ip nat; nft 'add chain ip nat prerouting { type nat hook prerouting priority dstnat; }'; nft add rule ip nat prerouting tcp dport 2222 redirect to :22")
	d := l.Run(sshDoor)
	eventually.True(t, "the status names the way around", func() bool {
		for _, f := range d.Status().Findings {
			if f.Door == "ssh" && strings.Contains(f.Problem, "lso reached by 2222/tcp") {
				return true
			}
		}
		return false
	})
}

// A service that listens on more ports than the door guards may be the same, and so may a
// relay.
func TestTheDoctorFindsSecondPorts(t *testing.T) {
	t.Parallel()
	t.Run("the same program", func(t *testing.T) {
		l := lab.New(t)
		l.ServeTCP(22)
		l.ServeTCP(2222)
		f := finds(l, sshDoor, doctor.Warning, "also reached by 2222/tcp", "listens there, and on 22/tcp")
		if f.Door != "ssh" {
			t.Errorf("it is said of the door %q", f.Door)
		}
		if r := examine(l, strings.Replace(sshDoor, "[22]", "[22, 2222]", 1)); len(r.Findings) > 0 {
			t.Errorf("both ports are guarded, and the doctor finds %+v", r.Findings)
		}
	})
	t.Run("a relay", func(t *testing.T) {
		l := lab.New(t)
		service := exec.Command(lab.NeedsProgram(t, "nc"), "-l", "-k", "22")
		lab.Must(t, lab.StartOn(l.Server, service))
		t.Cleanup(func() { service.Process.Kill(); service.Wait() })
		lab.Must(t, l.Server.Do(func() error {
			relay, err := net.Listen("tcp", ":8022")
			if err == nil {
				t.Cleanup(func() { relay.Close() })
			}
			return err
		}))
		eventually.True(t, "the relay is connected", func() bool {
			conn, err := dialFrom(l, l.Server, "127.0.0.1:22")
			if err == nil {
				t.Cleanup(func() { conn.Close() })
			}
			return err == nil
		})
		finds(l, sshDoor, doctor.Warning, "also reached by 8022/tcp", "connection to 22/tcp over loopback")
	})
}

// doctor finds a door with no service behind it, or with one that only this host reaches.
func TestTheDoctorFindsDoorsThatLeadNowhere(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	if f := finds(l, sshDoor, doctor.Warning, "Nothing listens on 22/tcp"); f.Stops != doctor.Connections {
		t.Errorf("it stops %q", f.Stops)
	}
	for _, address := range []string{"127.0.0.1", "::1"} {
		lab.Must(t, l.Server.Do(func() error {
			listener, err := net.Listen("tcp", net.JoinHostPort(address, "22"))
			if err == nil {
				t.Cleanup(func() { listener.Close() })
			}
			return err
		}))
	}
	if f := finds(l, sshDoor, doctor.Warning, "22/tcp", "on loopback only"); f.Stops != doctor.Connections {
		t.Errorf("a service on loopback stops %q", f.Stops)
	}
	lab.Must(t, l.Server.Do(func() error {
		listener, err := net.ListenPacket("udp", net.JoinHostPort(lab.Server4.String(), "53"))
		if err == nil {
			t.Cleanup(func() { listener.Close() })
		}
		return err
	}))
	if r := examine(l, strings.Replace(sshDoor, "[22]", `["53/udp"]`, 1)); len(r.Findings) > 0 {
		t.Errorf("something listens on 53/udp, and the doctor finds %+v", r.Findings)
	}
}

// fill adds at least that many connections to the server's conntrack.
func fill(l *lab.Lab, connections int) {
	l.T.Helper()
	lab.Must(l.T, l.Client.Do(func() error {
		conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: lab.Client4.AsSlice()})
		if err != nil {
			return err
		}
		defer conn.Close()
		for port := range connections {
			if _, err := conn.WriteTo([]byte{0}, &net.UDPAddr{IP: lab.Server4.AsSlice(), Port: 30000 + port}); err != nil {
				return err
			}
		}
		return nil
	}))
}

// The daemon knows how full conntrack's table is. Root of the initial user namespace sets
// its size.
func TestTheDaemonKnowsHowFullConntrackIs(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	d := l.Run(sshDoor)
	b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_max")
	lab.Must(t, err)
	most := strings.TrimSpace(string(b))
	eventually.True(t, "it knows how large the table is", func() bool { return fmt.Sprint(d.Status().Counters.TrackedLimit) == most })
	if n := d.Status().Counters.Tracked; n > 50 {
		t.Fatalf("on a quiet host conntrack is said to know %d connections", n)
	}
	fill(l, 200)
	eventually.True(t, "it knows that there are many more", func() bool { return d.Status().Counters.Tracked >= 200 })
}

func TestTheDoctorFindsThatConntrackForgetsSoon(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	lab.Must(t, l.Server.Do(func() error { return lab.WriteSysctl("netfilter/nf_conntrack_tcp_timeout_established", "300") }))
	finds(l, sshDoor, doctor.Warning, "idle for 300 seconds")
}

// doctor finds rules that exempt a door's connections from conntrack, and ignores those
// for other ports.
func TestTheDoctorFindsWhatIsNotTracked(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "nft")
	l := lab.New(t)
	l.ServeTCP(22)
	raw := func(rule string) {
		shell(l, "nft -f - <<'END'\ntable ip raw {\n  chain prerouting {\n    type filter hook prerouting priority raw;\n    "+rule+"\n  }\n}\nEND\n")
	}
	raw("tcp dport { 80, 443 } notrack")
	if r := examine(l, sshDoor); len(r.Findings)+len(r.Unmade) > 0 {
		t.Errorf("of other ports the doctor finds %+v", r)
	}
	raw("tcp dport 20-25 notrack")
	finds(l, sshDoor, doctor.Warning, "may exempt connections to 22/tcp", "table ip raw, chain prerouting")
}
