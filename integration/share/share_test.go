package share

import (
	"fmt"
	"math"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/wall"
)

// The client knocks at one host and connects to another without a pause: it is let in on
// its first SYN. The time from the last knock to the answer is in the log of the test.
func TestAKnockAtOneHostLetsInAtTheOthersOnTheFirstSYN(t *testing.T) {
	f := running(t, 3, 1, "")
	tries := 100
	if testing.Short() {
		tries = 20
	}
	for _, c := range []struct {
		name string
		of   func(m *member) netip.Addr
	}{
		{"IPv4", func(m *member) netip.Addr { return m.v4 }},
		{"IPv6", func(m *member) netip.Addr { return m.v6 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var took []time.Duration
			for n := range tries {
				at, to := f.members[n%3], f.members[(n+1)%3]
				from := lab.Source(n+1, c.of(at))
				var knocked time.Time
				err := to.OnFirstSYNAfter(from, c.of(to), 22, func() error {
					err := at.knocks(from, c.of(at))()
					knocked = time.Now()
					return err
				})
				if err != nil {
					t.Fatalf("try %d of %d, knocks at %s, connects to %s: %v", n+1, tries, at.name, to.name, err)
				}
				took = append(took, time.Since(knocked))
			}
			slices.Sort(took)
			t.Logf("last knock to connection at another host: %s at the median, %s at p99 of %d", took[len(took)/2], took[len(took)*99/100], len(took))
		})
	}
}

func TestWindowsAreSharedAsTheyChange(t *testing.T) {
	f := running(t, 3, 1, `window = "60s"`)
	a, b, c := f.members[0], f.members[1], f.members[2]
	source := lab.Source(1, a.v4)
	a.knockwall("open", "ssh", source.String())
	f.eventuallyEverywhere(source, true)
	if w, _ := b.window(source); w.Origin != "a" {
		t.Errorf("b says that it came from %q", w.Origin)
	}
	if w, _ := a.window(source); w.Origin != "" {
		t.Errorf("a says that it came from %q", w.Origin)
	}
	// Whoever closes it closes it for all.
	b.knockwall("close", "ssh", source.String())
	f.eventuallyEverywhere(source, false)
	a.daemon.WaitFor("closed", source.String(), "origin=b", "code=shared")
	// A door that is not shared is not.
	a.knockwall("open", "private", source.String())
	// A host that joins later, and a companion that has forgotten all, hear of it.
	other := lab.Source(2, a.v4)
	stop(c.companion, syscall.SIGKILL)
	a.knockwall("open", "ssh", other.String())
	eventually.True(t, "b has heard of it", func() bool { return b.isOpen(other) })
	if c.isOpen(other) {
		t.Error("c has heard of it without a companion")
	}
	stop(a.companion, syscall.SIGKILL) // and now from whoever knows
	c.share()
	eventually.True(t, "c has heard of it", func() bool { return c.isOpen(other) })
	a.share()
	a.connected()
	for _, m := range f.members {
		for _, w := range m.daemon.Status().Windows {
			if w.Door == "private" && m != a {
				t.Errorf("%s has a window at a door that is not shared", m.name)
			}
		}
	}
	// A reload that takes the door away closes nothing elsewhere.
	a.WriteRules(strings.Replace(a.rules("", filepath.Join(a.Folder, "nkey"), filepath.Join(f.folder, "ca.pem")), `door "ssh"`, `door "shh"`, 1))
	a.knockwall("reload")
	if a.isOpen(other) {
		t.Error("a still has it")
	}
	third := lab.Source(3, a.v4) // when this has arrived, a closing would have, too
	b.knockwall("open", "ssh", third.String())
	eventually.True(t, "c hears of another", func() bool { return c.isOpen(third) })
	if !b.isOpen(other) || !c.isOpen(other) {
		t.Error("it was closed elsewhere")
	}
}

// nft runs a command of nft where the servers are.
func (f *fleet) nft(script string) {
	f.t.Helper()
	cmd := exec.Command(lab.NeedsProgram(f.t, "nft"), "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	out := &lab.Output{}
	cmd.Stdout, cmd.Stderr = out, out
	lab.Must(f.t, lab.StartOn(f.hub, cmd))
	if err := cmd.Wait(); err != nil {
		f.t.Fatalf("nft: %v: %s", err, out)
	}
}

// In a partition the doors stay closed, and after it all hosts have the same windows.
func TestAfterAPartitionAllHaveTheSameWindows(t *testing.T) {
	f := running(t, 3, 1, `window = "10m"`)
	a, c := f.members[0], f.members[2]
	both, closed, there := lab.Source(1, a.v4), lab.Source(2, a.v4), lab.Source(3, a.v4)
	a.knockwall("open", "ssh", closed.String())
	f.eventuallyEverywhere(closed, true)
	f.nft(fmt.Sprintf(`table inet cut {
	chain in { type filter hook input priority 0; iifname %[1]q tcp dport 4222 drop
	}
	chain out { type filter hook output priority 0; oifname %[1]q tcp sport 4222 drop
	}
}
`, c.link))
	a.knockwall("open", "ssh", both.String())
	a.knockwall("close", "ssh", closed.String())
	c.knockwall("open", "ssh", there.String())
	eventually.True(t, "b has heard of it", func() bool { return f.members[1].isOpen(both) && !f.members[1].isOpen(closed) })
	if c.isOpen(both) || a.isOpen(there) {
		t.Error("the partition shares windows")
	}
	f.nft("delete table inet cut")
	began := time.Now()
	f.eventuallyEverywhere(both, true)
	f.eventuallyEverywhere(there, true)
	f.eventuallyEverywhere(closed, false)
	t.Logf("all have the same windows after %s", time.Since(began))
}

// as connects to the server with the key of a member, as a program of its own.
func (m *member) as() *nats.Conn { return m.connect(filepath.Join(m.Folder, "nkey")) }

// connect connects to the server from the member's host with a key.
func (m *member) connect(keyFile string) *nats.Conn {
	m.fleet.t.Helper()
	key, err := nats.NkeyOptionFromSeed(keyFile)
	lab.Must(m.fleet.t, err)
	var conn *nats.Conn
	lab.Must(m.fleet.t, m.Server.Do(func() error {
		conn, err = nats.Connect(fmt.Sprintf("tls://%s:4222", m.hub4), key, nats.RootCAs(filepath.Join(m.fleet.folder, "ca.pem")), nats.NoReconnect())
		return err
	}))
	m.fleet.t.Cleanup(conn.Close)
	return conn
}

// A member that lies opens nothing that it may not, and it is recorded who has lied.
func TestAMemberThatLies(t *testing.T) {
	f := running(t, 3, 1, "")
	a, b, liar := f.members[0], f.members[1], f.members[2]
	stop(liar.companion, syscall.SIGKILL)
	conn := liar.as()
	number := 0
	now := time.Now().UnixMilli()
	say := func(as, text string, values ...any) {
		number++
		lab.Must(t, conn.Publish("knockwall.prod."+as+".news", fmt.Appendf(nil, `{"run":"liar","number":%d,"windows":[`+text+`]}`, append([]any{number}, values...)...)))
		lab.Must(t, conn.Flush())
	}
	forged, private := lab.Source(1, a.v4), lab.Source(2, a.v4)
	// The server does not let it speak as another.
	say("b", `{"door":"ssh","source":%q,"host":"b","stamp":%d,"left":20000}`, forged, now)
	// It opens only what is shared, for no longer than the door's own window.
	say("c", `{"door":"private","source":%q,"host":"c","stamp":%d,"left":20000}`, private, now)
	say("c", `{"door":"ssh","source":"0.0.0.0/0","host":"c","stamp":%d,"left":20000}`, now)
	say("c", `{"door":"ssh","source":"10.1.0.0/16","host":"c","stamp":%d,"left":20000}`, now)
	say("c", `garbage`)
	long := lab.Source(3, a.v4)
	say("c", `{"door":"ssh","source":%q,"host":"c","stamp":%d,"left":86400000}`, long, now)
	for _, m := range []*member{a, b} {
		eventually.True(t, "what is allowed opens at "+m.name, func() bool { return m.isOpen(long) })
		if w, _ := m.window(long); w.LeftSeconds > 30 || w.Origin != "c" {
			t.Errorf("%s: %+v", m.name, w)
		}
		if n := len(m.daemon.Status().Windows); n != 1 {
			t.Errorf("%s has %d windows: %+v", m.name, n, m.daemon.Status().Windows)
		}
		m.daemon.WaitFor("refused", "origin=c", "code=not-shared", "failed=true")
	}
	if !strings.Contains(f.servers[0].log.String(), "Publish Violation") {
		t.Error("the server has let it publish as another")
	}
	// A door that is not shared is recorded, too. A host reports another one now and then.
	for m, n := range map[*member]int{a: 0, b: 1} {
		eventually.True(t, "recorded at "+m.name, func() bool {
			n++
			say("c", `{"door":"private","source":%q,"host":"c","stamp":%d,"left":20000}`, private, now)
			return m.daemon.Logged("refused", "door=private", "origin=c", "code=not-shared") > 0
		})
	}
}

// With another authority's certificate, or another key, nothing is shared, and it is said.
func TestWrongCertificateAndWrongKey(t *testing.T) {
	f := newFleet(t, 3, 1)
	f.serve(0)
	good, wrongCA, wrongKey := f.members[0], f.members[1], f.members[2]
	good.up("")
	good.connected()
	wrongCA.daemon = wrongCA.Run(wrongCA.rules("", filepath.Join(wrongCA.Folder, "nkey"), filepath.Join(f.folder, "other", "ca.pem")))
	wrongCA.share()
	wrongKey.daemon = wrongKey.Run(wrongKey.rules("", filepath.Join(f.folder, "stranger"), filepath.Join(f.folder, "ca.pem")))
	wrongKey.share()
	for m, says := range map[*member]string{wrongCA: "certificate", wrongKey: "uthorization"} {
		eventually.True(t, m.name+" says what is wrong", func() bool { return strings.Contains(m.log.String(), says) })
		if strings.Contains(m.log.String(), "connected to") {
			t.Errorf("%s is connected: %s", m.name, m.log)
		}
	}
	source := lab.Source(1, good.v4)
	good.knockwall("open", "ssh", source.String())
	for _, m := range []*member{wrongCA, wrongKey} {
		local := lab.Source(2, m.v4)
		lab.Must(t, m.OnFirstSYNAfter(local, m.v4, 22, m.knocks(local, m.v4)))
		if m.isOpen(source) {
			t.Errorf("%s shares windows", m.name)
		}
	}
}

// The status says which other hosts there are, how far away they are, and when nothing is
// known of them. The doctor asks the daemon.
func TestTheStatusKnowsTheOtherHosts(t *testing.T) {
	f := running(t, 3, 1, "")
	a, c := f.members[0], f.members[2]
	eventually.True(t, "a tells of two members, and how far they are", func() bool {
		s := a.daemon.Status().Sharing
		return s != nil && s.Companion != nil && s.Companion.Name == "a" && s.Companion.Connected && s.Companion.Count == 2 &&
			!slices.ContainsFunc(s.Companion.Members, func(m wall.Member) bool {
				return m.LagSeconds == nil || *m.LagSeconds <= 0 || *m.LagSeconds > 2 || m.ClockAheadSeconds == nil || math.Abs(*m.ClockAheadSeconds) > 2 || m.Version == ""
			})
	})
	t.Logf("members: %+v, %s", a.daemon.Status().Sharing.Companion, a.output("status"))
	if out := a.output("status"); !strings.Contains(out, "2 other hosts: b (lag ") {
		t.Errorf("status: %s", out)
	}
	if out := a.output("doctor"); strings.Contains(out, "group prod") {
		t.Errorf("doctor: %s", out)
	}
	stop(f.servers[0].cmd, syscall.SIGKILL)
	eventually.True(t, "doctor says that the server is gone", func() bool { return strings.Contains(a.output("doctor"), "no NATS") })
	f.serve(0)
	eventually.True(t, "it is back", func() bool { return !strings.Contains(a.output("doctor"), "no NATS") })
	stop(c.companion, syscall.SIGKILL)
	eventually.True(t, "nothing is known at c", func() bool { return c.daemon.Status().Sharing.Companion == nil })
	if out := c.output("status"); !strings.Contains(out, "unknown") {
		t.Errorf("status: %s", out)
	}
	if out := c.output("doctor"); !strings.Contains(out, "No companion is connected") {
		t.Errorf("doctor: %s", out)
	}
	_ = c.daemon.Stop(syscall.SIGKILL)
	if out := c.output("doctor"); !strings.Contains(out, "not checked: sharing") {
		t.Errorf("doctor without a daemon: %s", out)
	}
}

// output returns what a command says, on one line.
func (m *member) output(command string) string {
	m.fleet.t.Helper()
	arguments := []string{command, "--control", m.daemon.Control}
	if command == "doctor" {
		arguments = append(arguments, "--config", filepath.Join(m.Folder, "rules.hcl"))
	}
	cmd := lab.Knockwall(arguments...)
	out := &lab.Output{}
	cmd.Stdout, cmd.Stderr = out, out
	lab.Must(m.fleet.t, lab.StartOn(m.Server, cmd))
	_ = cmd.Wait() // doctor fails with an error that it has found
	return strings.Join(strings.Fields(out.String()), " ")
}
