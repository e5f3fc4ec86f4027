package clients

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// Configurations of knockd and Atomicorp are imported with `knockwall import`, checked
// with `knockwall check`, and guard ports on the real kernel. knockd's own client knocks.
// What worked with the old program works with knockwall.

// migrated is an imported configuration with its daemon.
type migrated struct {
	*lab.Lab
	t      *testing.T
	config *ruleset.Config
	d      *lab.Daemon
}

// foreign returns a configuration from the tests of package migrate. oldNew are pairs of
// a name in it and its replacement in this lab.
func foreign(l *lab.Lab, name string, oldNew ...string) string {
	l.T.Helper()
	text, err := os.ReadFile(filepath.Join("../../internal/migrate/testdata", name))
	lab.Must(l.T, err)
	for i := 0; i < len(oldNew); i += 2 {
		if !strings.Contains(string(text), oldNew[i]) {
			l.T.Fatalf("%s has no %q any more", name, oldNew[i])
		}
	}
	return strings.NewReplacer(oldNew...).Replace(string(text))
}

// migrate imports a configuration, checks it and runs it.
func migrate(l *lab.Lab, t *testing.T, foreign string) *migrated {
	t.Helper()
	imported := lab.Knockwall("import", "-")
	imported.Stdin = strings.NewReader(foreign)
	var said bytes.Buffer
	imported.Stderr = &said
	imported.Env = quickEnd()
	rules, err := imported.Output()
	if err != nil {
		t.Fatalf("import: %v\n%s", err, &said)
	}
	path := l.WriteRules(string(rules))
	check := lab.Knockwall("check", "--config", path)
	check.Env = quickEnd()
	if out, err := check.CombinedOutput(); err != nil {
		t.Fatalf("check: %v\n%s\n%s", err, out, rules)
	}
	loaded := ruleset.Review(path)
	m := &migrated{Lab: l, t: t, config: loaded.Config, d: l.LaunchFile(path)}
	eventually.True(t, "the daemon guards", func() bool { return m.d.Logged("started") > 0 })
	return m
}

// door returns an imported door.
func (m *migrated) door(name string) *ruleset.Door {
	m.t.Helper()
	d := m.config.Door(name)
	if d == nil {
		m.t.Fatalf("there is no door %s", name)
	}
	return d
}

// knocks knocks with knockd's client (port:protocol).
func (m *migrated) knocks(to netip.Addr, steps []packet.Port) {
	m.t.Helper()
	arguments := []string{"-4", to.String()}
	if to.Is6() {
		arguments[0] = "-6"
	}
	for _, s := range steps {
		arguments = append(arguments, fmt.Sprintf("%d:%s", s.Number, s.Protocol))
	}
	if out, err := m.RunOnClient(lab.NeedsProgram(m.t, "knock"), arguments...); err != nil {
		m.t.Fatalf("knock %v: %v\n%s", arguments, err, out)
	}
}

// opens knocks at a door and waits until it is open.
func (m *migrated) opens(to netip.Addr, door string) {
	m.t.Helper()
	m.knocks(to, sequenceOf(m.door(door)))
	m.d.WaitFor("opened", "door="+door)
}

func (m *migrated) shut(to netip.Addr, port int, why string) {
	m.t.Helper()
	if m.AdmitsAtOnce(selfTowards(to), to, port) {
		m.t.Errorf("port %d of %s is open: %s", port, to, why)
	}
}

func (m *migrated) open(to netip.Addr, port int, why string) {
	m.t.Helper()
	if !m.Admits(selfTowards(to), to, port) {
		m.t.Errorf("port %d of %s is shut: %s", port, to, why)
	}
}

// selfTowards returns the client's default source address.
func selfTowards(to netip.Addr) netip.Addr {
	if to.Is6() {
		return lab.Client6
	}
	return lab.Client4
}

// Two doors of knockd, one to open and one to close, become one door.
func TestKnockdsPairOfDoors(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "knock")
	for _, to := range []netip.Addr{lab.Server4, lab.Server6} {
		l := lab.New(t)
		l.ServeTCP(2222)
		m := migrate(l, t, foreign(l, "pair.conf", "ens3", l.ServerLink))
		m.shut(to, 2222, "nobody has knocked")
		m.opens(to, "openSSH")
		m.open(to, 2222, "it was knocked at")
		m.knocks(to, m.door("openSSH").CloseSequence)
		m.d.WaitFor("closed", "door=openSSH")
		m.shut(to, 2222, "it was knocked shut")
	}
}

// The window of a door with a Stop_Command lasts for Cmd_Timeout, and the admitted
// session lasts longer. Its knocks alternate between TCP and UDP.
func TestKnockdsTimeouts(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "knock")
	l := lab.New(t)
	for _, port := range []int{22, 80, 82} {
		l.ServeTCP(port)
	}
	m := migrate(l, t, foreign(l, "window.conf"))
	m.opens(lab.Server4, "openCloseSSH")
	m.open(lab.Server4, 22, "it was knocked at, by UDP and TCP")
	m.shut(lab.Server4, 80, "another door was knocked at")
	m.opens(lab.Server4, "defaults")
	m.open(lab.Server4, 80, "it was knocked at")
	m.opens(lab.Server4, "tooShort") // its window lasts one second
	session, err := l.Dial(lab.Client4, lab.Server4, 82, lab.Deadline)
	lab.Must(t, err)
	defer session.Close()
	m.d.WaitFor("expired", "door=tooShort")
	eventually.True(t, "the window is over in the kernel, too", func() bool { return len(l.KernelWindows()) == 2 })
	m.shut(lab.Server4, 82, "its time is up")
	lab.Must(t, lab.Exchange(session))
	m.open(lab.Server4, 22, "its time is not up yet")
}

// Whatever firewall the commands were for, each door opens its ports after its knocks,
// among many doors that share ports.
func TestKnockdsDoorsOfEveryFirewall(t *testing.T) {
	t.Parallel()
	for file, link := range map[string]string{
		"iptables.conf": "eth0", "nft.conf": "eth0", "ufw.conf": "eth0", "firewalld.conf": "", "ipfw.conf": "em0", "twins.conf": "",
		"everybody.conf": "", "closing.conf": "", "timed.conf": "", "shell.conf": "", "dialects.conf": "em0", "sets.conf": "", "nat.conf": "",
	} {
		t.Run(strings.TrimSuffix(file, ".conf"), func(t *testing.T) {
			t.Parallel()
			lab.NeedsProgram(t, "knock")
			l := lab.New(t)
			var renamed []string
			if link != "" {
				renamed = []string{link, l.ServerLink}
			}
			m := migrate(l, t, foreign(l, file, renamed...))
			served := map[packet.PortRange]bool{}
			tried := 0
			for i := range m.config.Doors {
				d := &m.config.Doors[i]
				if len(d.Ports) == 0 {
					continue
				}
				first := d.Ports[0]
				number := int(first.First)
				reaches := func(want bool) bool { return l.Admitted(want, lab.Client4, lab.Server4, number) }
				if first.Protocol == packet.UDP {
					reaches = func(want bool) bool { return answered(l, want, lab.Client4, lab.Server4, first.First) }
				}
				if !served[first] {
					served[first] = true
					if first.Protocol == packet.UDP {
						l.ServeUDP(number, lab.Server4)
					} else {
						l.ServeTCP(number)
					}
					if reaches(false) {
						t.Errorf("%s: %s is open, and nobody has knocked", d.Name, first)
					}
				}
				m.opens(lab.Server4, d.Name)
				if !reaches(true) {
					t.Errorf("%s: %s is shut, and it was knocked at", d.Name, first)
				}
				tried++
			}
			if tried < 2 {
				t.Errorf("there are %d doors with ports, and no several", tried)
			}
		})
	}
}

// The doors of knockd's manual: TCP flags, a closing door, and one-time sequences from a
// list, whose lines are crossed out as knockd did.
func TestKnockdsManual(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "knock")
	l := lab.New(t)
	l.ServeTCP(22)
	l.ServeTCP(25)
	list := filepath.Join(l.Folder, "smtp_sequences")
	lab.Must(t, os.WriteFile(list, []byte("# from knockd\n#217,4312:udp,9911\n6217,4312:udp,9911\n5120:tcp,1731,7007:udp\n"), 0o600))
	lab.Must(t, os.WriteFile(list+"6", []byte("3001,8223:udp,1444\n"), 0o600))
	m := migrate(l, t, foreign(l, "manual.conf", "/etc/knockd/", l.Folder+"/"))
	m.opens(lab.Server4, "openSSH")
	m.open(lab.Server4, 22, "it was knocked at")
	m.knocks(lab.Server4, m.door("openSSH").CloseSequence)
	m.d.WaitFor("closed", "door=openSSH")
	m.shut(lab.Server4, 22, "it was knocked shut")

	// A knock at SMTP is a FIN without an ACK. Only hping can send that.
	m.knocks(lab.Server4, []packet.Port{lab.TCP(6217), lab.UDP(4312), lab.TCP(9911)})
	m.shut(lab.Server4, 25, "its knocks are no SYNs")
	fins := []forge.Segment{
		{From: lab.Client4, To: lab.Server4, SourcePort: 40001, Port: lab.TCP(6217), Flags: packet.FIN},
		{From: lab.Client4, To: lab.Server4, SourcePort: 40002, Port: lab.UDP(4312)},
		{From: lab.Client4, To: lab.Server4, SourcePort: 40003, Port: lab.TCP(9911), Flags: packet.FIN},
	}
	l.Send(fins...)
	m.d.WaitFor("opened", "door=SMTP ")
	m.open(lab.Server4, 25, "it was knocked at by FINs")
	text, err := os.ReadFile(list)
	lab.Must(t, err)
	if want := "# from knockd\n#217,4312:udp,9911\n#217,4312:udp,9911\n5120:tcp,1731,7007:udp\n"; string(text) != want {
		t.Errorf("the list is now\n%swant\n%s", text, want)
	}
}

// Lines of a list work once each, in their order.
func TestKnockdsOneTimeSequences(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "knock")
	l := lab.New(t)
	l.ServeTCP(24)
	list := filepath.Join(l.Folder, "22")
	lab.Must(t, os.WriteFile(list, []byte("6217,4312:udp,9911\n5120:tcp,1731,7007:udp\n"), 0o600))
	// The target is an address of the server here.
	m := migrate(l, t, foreign(l, "spacing.conf", "/etc/knockd/22", list, "203.0.113.7", lab.Server4.String()))
	first, second := []packet.Port{lab.TCP(6217), lab.UDP(4312), lab.TCP(9911)}, []packet.Port{lab.TCP(5120), lab.TCP(1731), lab.UDP(7007)}
	opened := func() int { return m.d.Logged("opened", "door=door-22") }
	m.knocks(lab.Server4, second)
	m.shut(lab.Server4, 24, "it is the second one's turn after the first")
	m.knocks(lab.Server4, first)
	eventually.True(t, "the first opens the door", func() bool { return opened() == 1 })
	m.d.WaitFor("low", "door=door-22", "left in "+list+": 1") // the second line is next
	m.knocks(lab.Server6, first)
	m.shut(lab.Server6, 24, "that one was used")
	m.knocks(lab.Server6, second)
	eventually.True(t, "the second opens the door", func() bool { return opened() == 2 })
	m.open(lab.Server6, 24, "it was knocked at")
}

// Commands that knockd ran in a shell run with the same arguments and by the same rules.
// The test compares them with what a shell does with the command after knockd has
// inserted the source.
func TestKnockdsCommandsRun(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "knock")
	for _, to := range []netip.Addr{lab.Server4, lab.Server6} {
		l := lab.New(t)
		l.ServeTCP(22)
		// The program writes its arguments, and where its output goes.
		script, output := filepath.Join(l.Folder, "notify"), filepath.Join(l.Folder, "output")
		lab.Must(t, os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\nprintf '<%%s>' \"$@\" >>%[1]s; echo >>%[1]s\n", output), 0o755))
		conf := foreign(l, "commands.conf",
			"/usr/local/bin/notify", script, "/usr/bin/logger", script, "logger -t knock", "cat >>"+output,
			"logger closed", script+" closed", "logger bye", script+" bye", "cmd_timeout = 15", "cmd_timeout = 1")
		m := migrate(l, t, conf)
		taken := func() string {
			text, _ := os.ReadFile(output)
			return string(text)
		}
		for _, door := range []string{"quoted", "pipe"} {
			want := byShell(t, conf, door, selfTowards(to).String(), taken)
			lab.Must(t, os.RemoveAll(output))
			m.opens(to, door)
			eventually.True(t, fmt.Sprintf("the command of %s has run and written %q", door, want), func() bool { return taken() == want })
			m.d.WaitFor("command", "door="+door, "exit code 0")
			lab.Must(t, os.RemoveAll(output))
		}
		m.opens(to, "logged")
		m.open(to, 22, "it was knocked at")
		want := fmt.Sprintf("<opened for %[1]s>\n<closed><for><%[1]s>\n<bye>\n", selfTowards(to))
		eventually.True(t, fmt.Sprintf("on_open and, after a second, on_close have written %q", want), func() bool { return taken() == want })
	}
}

// byShell runs a door's command as knockd did, and returns its output.
func byShell(t *testing.T, conf, door, source string, taken func() string) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^\[` + door + `\]\n(?:\t.*\n)*?\tcommand = (.*)$`).FindStringSubmatch(conf)
	if m == nil {
		t.Fatalf("%s has no command", door)
	}
	if out, err := exec.Command("/bin/sh", "-c", strings.ReplaceAll(m[1], "%IP%", source)).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", m[1], err, out)
	}
	return taken()
}

// Atomicorp's simple list: ports and their knocks.
func TestAtomicorpsSimpleList(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "knock")
	l := lab.New(t)
	l.ServeTCP(22)
	l.ServeTCP(8080)
	m := migrate(l, t, foreign(l, "atomicorp-simple.conf"))
	m.shut(lab.Server4, 22, "nobody has knocked")
	m.shut(lab.Server4, 8080, "nobody has knocked")
	m.opens(lab.Server4, "port-8080")
	m.open(lab.Server4, 8080, "it was knocked at")
	m.shut(lab.Server4, 22, "the other one was knocked at")
	m.opens(lab.Server4, "port-22")
	m.open(lab.Server4, 22, "it was knocked at")
	m.opens(lab.Server6, "port-22-2")
	m.open(lab.Server6, 22, "it was knocked at, by another line of the list")
}

// otpScript sends a one-time password as the documentation of xt_pknock describes it. It
// shares no code with this program. Arguments: source, host, port, secret.
const otpScript = `
import hashlib, hmac, socket, struct, sys, time
source, host, port, secret = sys.argv[1:]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
message = socket.inet_pton(family, source) + struct.pack("<I", int(time.time()) // 60)
digits = hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()
sock = socket.socket(family, socket.SOCK_DGRAM)
sock.bind((source, 0))
sock.sendto(digits.encode() + b"\n", (host, int(port)))
`

// Atomicorp's advanced list: a one-time password opens a port, and another closes it. The
// secrets in the second line contain characters with a meaning in HCL.
func TestAtomicorpsAdvancedList(t *testing.T) {
	t.Parallel()
	python := lab.NeedsProgram(t, "python3")
	for family, to := range map[string]netip.Addr{"IPv4": lab.Server4, "IPv6": lab.Server6} {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			l.ServeTCP(22)
			l.ServeTCP(443)
			m := migrate(l, t, foreign(l, "atomicorp-advanced.conf"))
			send := func(port, secret string) {
				t.Helper()
				waitForRoom(t, time.Minute) // the list allows no skew
				if out, err := m.RunOnClient(python, "-c", otpScript, selfTowards(to).String(), to.String(), port, secret); err != nil {
					t.Fatalf("the client of one-time passwords: %v\n%s", err, out)
				}
			}
			for _, door := range []struct {
				port        int
				at          string
				open, close string
			}{{22, "2000", "hipjazz", "superawesome"}, {443, "2001", `${door}"\`, "%{x}"}} {
				name := fmt.Sprintf("door=port-%d ", door.port)
				m.shut(to, door.port, "nobody has sent a password")
				send(door.at, "guessed")
				m.d.WaitFor("reset", name)
				m.shut(to, door.port, "that was no password of it")
				send(door.at, door.open)
				m.d.WaitFor("opened", name)
				m.open(to, door.port, "that was its password")
				send(door.at, door.close)
				m.d.WaitFor("closed", name)
				m.shut(to, door.port, "that was the password that closes it")
				if slices.Contains(strings.Fields(m.d.Log.String()), door.open) {
					t.Error("a secret is in the log")
				}
			}
		})
	}
}
