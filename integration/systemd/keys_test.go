package systemd

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/spa"
)

// keyed is a machine whose door ssh opens to a person with a key in an ssh-agent.
type keyed struct {
	*machine
	l         *lab.Lab
	agent     string // path of the agent's socket
	key       ssh.PublicKey
	authority spa.Public // the machine's identity
	home      string     // with the client's hosts file
}

const (
	keyPort = 62201
	holder  = "alice@laptop"
)

// keyedRules returns a rule file whose wall has this identity.
func keyedRules(identity string) string {
	return `wall { identity = ` + identity + ` }
door "ssh" {
  ports  = [22]
  window = "10m"
  keys { authorized = ["/etc/knockwall.d/people"] }
}`
}

// newKeyed boots a machine with the package, an identity and a people file, as `init --keys`
// makes them. The service is not started.
func newKeyed(l *lab.Lab, rules string) *keyed {
	l.T.Helper()
	keygen, sshAgent, add := lab.NeedsProgram(l.T, "ssh-keygen"), lab.NeedsProgram(l.T, "ssh-agent"), lab.NeedsProgram(l.T, "ssh-add")
	k := &keyed{machine: newPackaged(l, rules), l: l, agent: filepath.Join(l.Folder, "agent"), home: filepath.Join(l.Folder, "home")}
	file := filepath.Join(l.Folder, "id")
	lab.Must(l.T, runQuietly(keygen, "-q", "-t", "ed25519", "-N", "", "-C", holder, "-f", file))
	daemon := exec.Command(sshAgent, "-D", "-a", k.agent)
	lab.Must(l.T, daemon.Start())
	l.T.Cleanup(func() { daemon.Process.Kill(); daemon.Wait() })
	eventually.True(l.T, "the agent listens", func() bool { _, err := os.Stat(k.agent); return err == nil })
	lab.Must(l.T, runQuietly("env", "SSH_AUTH_SOCK="+k.agent, add, "-q", file))
	lab.Must(l.T, os.Remove(file)) // only the agent has it now

	line, err := os.ReadFile(file + ".pub")
	lab.Must(l.T, err)
	k.key, _, _, _, err = ssh.ParseAuthorizedKey(line)
	lab.Must(l.T, err)
	k.write("/etc/knockwall.d/people", string(line), 0o644)
	public := strings.TrimSpace(k.does("knockwall", "identity"))
	k.authority, err = spa.ParsePublic(public)
	lab.Must(l.T, err)
	lab.WriteFile(l.T, filepath.Join(k.home, "knockwall/hosts.hcl"), fmt.Sprintf(
		"host \"gate\" {\n  address  = %q\n  identity = %q\n  door     = \"ssh\"\n  source   = \"seen\"\n}\n", lab.Server4, public), 0o600)
	return k
}

// entersByKey fails the test unless the person's client is let in after its knock, and not
// before.
func (k *keyed) entersByKey(when string) {
	k.t.Helper()
	if k.l.AdmitsAtOnce(lab.Client4, lab.Server4, 22) {
		k.t.Errorf("%s, the client is let in before its knock", when)
	}
	if out, err := k.l.RunOnClient("env", lab.EndAtOnce, "XDG_CONFIG_HOME="+k.home, "SSH_AUTH_SOCK="+k.agent, lab.BinaryPath(), "knock", "gate"); err != nil {
		k.t.Fatalf("%s: %v\n%s", when, err, out)
	}
	if !k.l.Admits(lab.Client4, lab.Server4, 22) {
		k.t.Errorf("%s, the client is kept out after its knock", when)
	}
	opened := k.entries("KNOCKWALL_EVENT=opened", "KNOCKWALL_SOURCE="+lab.Client4.String())
	if len(opened) == 0 {
		k.t.Fatalf("%s, the journal does not have the opening", when)
	}
	last := opened[len(opened)-1]
	if last["KNOCKWALL_PERSON"] != holder || last["KNOCKWALL_KEY"] != ssh.FingerprintSHA256(k.key) {
		k.t.Errorf("%s, the journal has the opening by %q with the key %q", when, last["KNOCKWALL_PERSON"], last["KNOCKWALL_KEY"])
	}
	k.does("knockwall", "close", "ssh", holder)
}

// datagram returns a knock that the agent has signed.
func (k *keyed) datagram() string {
	k.t.Helper()
	conn, err := net.Dial("unix", k.agent)
	lab.Must(k.t, err)
	defer conn.Close()
	b, err := spa.Seal(k.authority, spa.Knock{What: spa.Open, Time: time.Now(), Door: spa.HashDoor("ssh")}, k.key,
		func(data []byte) (*ssh.Signature, error) { return agent.NewClient(conn).Sign(k.key, data) })
	lab.Must(k.t, err)
	return string(b)
}

// In its sandbox the daemon takes signed knocks, with an identity from a file and from a
// credential. It does not take a knock twice, whatever has ended the daemon that took it
// first, and it closes the windows of a person who is no longer listed.
func TestKeysUnderSystemd(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	k := newKeyed(l, keyedRules(`"/etc/knockwall.d/identity"`))
	k.does("systemctl", "start", "knockwall.service")
	k.entersByKey("with an identity in a file")

	used := k.datagram()
	l.SendDatagram(lab.Source(1, lab.Server4), lab.Server4, keyPort, used)
	k.eventually("the knock opens the door once", func() bool {
		return len(k.entries("KNOCKWALL_EVENT=opened", "KNOCKWALL_SOURCE="+lab.Source(1, lab.Server4).String())) == 1
	})
	thieves := 1
	isUsed := func(when string) {
		t.Helper()
		thieves++
		thief := lab.Source(thieves, lab.Server4)
		l.SendDatagram(thief, lab.Server4, keyPort, used)
		k.eventually(when+", the journal has the replay", func() bool {
			return len(k.entries("KNOCKWALL_EVENT=replayed", "KNOCKWALL_SOURCE="+thief.String(), "KNOCKWALL_PERSON="+holder)) == 1
		})
		if l.AdmitsAtOnce(thief, lab.Server4, 22) {
			t.Errorf("%s, whoever copies a knock is let in", when)
		}
	}
	k.does("systemctl", "restart", "knockwall.service")
	isUsed("after a restart")
	pid := k.property("MainPID")
	k.does("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "knockwall.service")
	k.eventually("another daemon runs", func() bool {
		now := k.property("MainPID")
		return now != pid && now != "0"
	})
	k.settled()
	isUsed("after a kill")

	k.does("install", "-D", "--mode=600", "--owner=root", "/etc/knockwall.d/identity", "/etc/knockwall.secrets/identity")
	k.does("rm", "/etc/knockwall.d/identity")
	k.does("chmod", "700", "/etc/knockwall.secrets")
	k.rules(keyedRules(`credential("identity")`))
	k.configure("LoadCredential=identity:/etc/knockwall.secrets/identity")
	k.does("systemctl", "restart", "knockwall.service")
	isUsed("after a restart with a credential")
	k.entersByKey("with an identity in a credential")
	if out, err := k.tell("sh", "-c", "knockwall check 2>&1"); err != nil || !strings.Contains(out, "Secret not looked at") {
		t.Errorf("check says: %v\n%s", err, out)
	}

	guest := lab.Source(100, lab.Server4)
	l.SendDatagram(guest, lab.Server4, keyPort, k.datagram())
	if !l.Admits(guest, lab.Server4, 22) {
		t.Error("the person is kept out from another address")
	}
	k.write("/etc/knockwall.d/people", "# nobody\n", 0o644)
	k.does("systemctl", "reload", "knockwall.service")
	k.eventually("the window of a person who is not listed is closed", func() bool {
		return len(k.entries("KNOCKWALL_EVENT=closed", "KNOCKWALL_SOURCE="+guest.String(), "KNOCKWALL_CODE=no-longer")) == 1
	})
	if l.AdmitsAtOnce(guest, lab.Server4, 22) {
		t.Error("a person who is no longer listed is let in")
	}
	if failed := k.does("journalctl", "--unit=knockwall", "--priority=err", "--quiet", "--output=cat"); strings.Contains(failed, "not permitted") {
		t.Errorf("the sandbox has stopped something: %s", failed)
	}
}
