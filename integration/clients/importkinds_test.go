package clients

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/packet"
)

// kind is a kind of commands in knockd.conf that import translates.
type kind struct {
	open, close string   // the commands of the doors [in] and [out]; close may be empty
	port        int      // that opens
	firewall    []string // commands before knockd starts, beside a policy that drops
	forAll      []string // commands that the import asks of the administrator
	ends        bool     // the door closes by itself within seconds
}

// kinds are run by knockd with iptables and nft, and by the daemon after an import.
var kinds = map[string]kind{
	"every port":               {open: "iptables -I INPUT -s %IP% -j ACCEPT", close: "iptables -D INPUT -s %IP% -j ACCEPT", port: 2201},
	"one port":                 {open: "iptables -I INPUT -s %IP% -p tcp --dport 2201 -j ACCEPT", close: "iptables -D INPUT -s %IP% -p tcp --dport 2201 -j ACCEPT", port: 2201},
	"everybody":                {open: "iptables -I INPUT -p tcp --dport 2201 -j ACCEPT", close: "iptables -D INPUT -p tcp --dport 2201 -j ACCEPT", port: 2201},
	"a drop that is taken out": {open: "iptables -D INPUT -p tcp --dport 2201 -j DROP", close: "iptables -I INPUT -p tcp --dport 2201 -j DROP", port: 2201, firewall: []string{"iptables -A INPUT -p tcp --dport 2201 -j DROP", "iptables -A INPUT -p tcp --dport 2201 -j ACCEPT"}},
	"closing by reject":        {open: "iptables -I INPUT -s %IP% -p tcp --dport 2201 -j ACCEPT", close: "iptables -I INPUT -s %IP% -p tcp --dport 2201 -j REJECT", port: 2201},
	"closing by flush":         {open: "iptables -A FRIENDS -s %IP% -p tcp --dport 2201 -j ACCEPT", close: "iptables -F FRIENDS", port: 2201, firewall: []string{"iptables -N FRIENDS", "iptables -A INPUT -j FRIENDS"}},
	"a check first":            {open: "iptables -C INPUT -s %IP% -p tcp --dport 2201 -j ACCEPT || iptables -A INPUT -s %IP% -p tcp --dport 2201 -j ACCEPT", port: 2201},
	"or true":                  {open: "iptables -I INPUT -s %IP% -p tcp --dport 2201 -j ACCEPT || true", port: 2201},
	"in the background":        {open: "iptables -I INPUT -s %IP% -p tcp --dport 2201 -j ACCEPT &", port: 2201},
	"sleep":                    {open: "iptables -I INPUT -s %IP% -p tcp --dport 2201 -j ACCEPT && (sleep 2; iptables -D INPUT -s %IP% -p tcp --dport 2201 -j ACCEPT) &", port: 2201, ends: true},
	"a shell within":           {open: "/bin/sh -c 'timeout 5 iptables -I INPUT -s %IP% -p tcp --dport 2201 -j ACCEPT' > /dev/null 2>&1", port: 2201},
	"a loop":                   {open: "for port in 2202 2201; do iptables -I INPUT -s %IP% -p tcp --dport $port -j ACCEPT; done", port: 2201},
	"answers too":              {open: "iptables -I INPUT -s %IP% -p tcp --dport 2201 -j ACCEPT && iptables -I OUTPUT -d %IP% -p tcp --sport 2201 -j ACCEPT", close: "iptables -D INPUT -s %IP% -p tcp --dport 2201 -j ACCEPT && iptables -D OUTPUT -d %IP% -p tcp --sport 2201 -j ACCEPT", port: 2201},
	"a chain as target":        {open: "iptables -I INPUT -s %IP% -p tcp --dport 2201 -j LOG_ACCEPT", port: 2201, firewall: []string{"iptables -N LOG_ACCEPT", "iptables -A LOG_ACCEPT -j ACCEPT"}},
	"a name":                   {open: "iptables -I INPUT -s %IP% -p tcp --dport domain -j ACCEPT", port: 53},
	"a redirection":            {open: "iptables -t nat -I PREROUTING -s %IP% -p tcp --dport 4431 -j REDIRECT --to-ports 2201", close: "iptables -t nat -D PREROUTING -s %IP% -p tcp --dport 4431 -j REDIRECT --to-ports 2201", port: 4431, firewall: []string{"iptables -A INPUT -p tcp --dport 2201 -j ACCEPT"}, forAll: []string{"iptables -t nat -A PREROUTING -p tcp --dport 4431 -j REDIRECT --to-ports 2201"}},
	"a rule of nft":            {open: "nft insert rule ip filter INPUT ip saddr %IP% tcp dport 2201 accept", port: 2201},
	"an element with its port": {open: "nft add element ip filter allowed { %IP% . 2201 timeout 2s }", port: 2201, firewall: []string{"nft add set ip filter allowed { type ipv4_addr . inet_service; flags timeout; }", "nft insert rule ip filter INPUT ip saddr . tcp dport @allowed accept"}, ends: true},
}

// conf returns the kind as a configuration of knockd.
func (k *kind) conf() string {
	text := "[options]\n\tPidFile = /dev/null\n\n[in]\n\tsequence = 5101,27101:udp,1901\n\ttcpflags = syn\n\tcommand = " + k.open + "\n"
	if k.close != "" {
		text += "\n[out]\n\tsequence = 5102,27102:udp,1902\n\ttcpflags = syn\n\tcommand = " + k.close + "\n"
	}
	return text
}

var (
	toOpen  = []packet.Port{lab.TCP(5101), lab.UDP(27101), lab.TCP(1901)}
	toClose = []packet.Port{lab.TCP(5102), lab.UDP(27102), lab.TCP(1902)}
)

// onServer runs a command of a firewall on the server.
func onServer(l *lab.Lab, command string) error {
	var out bytes.Buffer
	words := strings.Fields(command)
	if words[0] == "nft" {
		words = []string{"nft", strings.Join(words[1:], " ")}
	}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := lab.StartOn(l.Server, cmd); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", command, err, &out)
	}
	return nil
}

// underKnockd starts knockd and a firewall that drops what no rule accepts.
func underKnockd(t *testing.T, k *kind) *lab.Lab {
	l := lab.New(t)
	knockd := lab.NeedsProgram(t, "knockd")
	for _, command := range slices.Concat([]string{
		"iptables -A INPUT -i lo -j ACCEPT",
		"iptables -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
		"iptables -P INPUT DROP",
	}, k.firewall) {
		if err := onServer(l, command); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "knockd.conf")
	lab.WriteFile(t, path, k.conf(), 0o600)
	cmd := exec.Command(knockd, "-v", "-i", l.ServerLink, "-c", path)
	out := &lab.Output{}
	cmd.Stdout, cmd.Stderr = out, out
	lab.Must(t, lab.StartOn(l.Server, cmd))
	t.Cleanup(func() {
		lab.Must(t, cmd.Process.Signal(os.Interrupt))
		_ = cmd.Wait() // by the signal
	})
	eventually.True(t, "knockd listens", func() bool { return strings.Contains(out.String(), "listening") })
	return l
}

// TestKnockdAndItsImportDoTheSame knocks at knockd with iptables, and at the daemon with the
// rule file that import makes of the same configuration.
func TestKnockdAndItsImportDoTheSame(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "knock")
	lab.NeedsProgram(t, "iptables")
	lab.NeedsProgram(t, "nft")
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			old := &migrated{Lab: underKnockd(t, &k), t: t}
			l := lab.New(t)
			for _, command := range k.forAll {
				if err := onServer(l, command); err != nil {
					t.Fatal(err)
				}
			}
			imported := migrate(l, t, k.conf())
			for of, m := range map[string]*migrated{"knockd": old, "the import": imported} {
				served := k.port
				if len(k.forAll) > 0 {
					served = 2201
				}
				m.ServeTCP(served)
				reaches := func() bool { return m.AdmitsAtOnce(lab.Client4, lab.Server4, k.port) }
				if reaches() {
					t.Errorf("%s: the port is open, and nobody has knocked", of)
				}
				m.knocks(lab.Server4, toOpen)
				eventually.True(t, of+" opens the port", reaches)
				switch {
				case k.close != "":
					m.knocks(lab.Server4, toClose)
					eventually.True(t, of+" closes the port by knocks", func() bool { return !reaches() })
				case k.ends:
					eventually.True(t, of+" closes the port in time", func() bool { return !reaches() })
				}
			}
		})
	}
}

// Recipes of firewalls become doors that open after the same knocks.
func TestRecipesOfFirewalls(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "knock")
	for file, port := range map[string]int{"recent.conf": 22, "recent-flat.conf": 22, "nft-stages.conf": 8443, "nft-sets.conf": 22, "routeros.conf": 8291, "routeros-all.conf": 2201} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			l.ServeTCP(port)
			m := migrate(l, t, foreign(l, file))
			m.shut(lab.Server4, port, "nobody has knocked")
			m.opens(lab.Server4, m.config.Doors[0].Name)
			m.open(lab.Server4, port, "it was knocked at")
		})
	}
}

// A rule for forwarded packets becomes a door before the host behind.
func TestKnockdsForwarding(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "knock")
	l := lab.New(t)
	l.AddInside(3389)
	m := migrate(l, t, foreign(l, "forward.conf", "10.0.0.5", lab.Inside.String()))
	m.shut(lab.Inside, 3389, "nobody has knocked")
	m.opens(lab.Inside, "inner")
	m.open(lab.Inside, 3389, "it was knocked at")
	m.knocks(lab.Inside, m.door("inner").CloseSequence)
	m.d.WaitFor("closed", "door=inner")
	m.shut(lab.Inside, 3389, "it was knocked shut")
}
