package methods

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/spa"
)

// keyed is a host whose door ssh opens to people with keys.
type keyed struct {
	*lab.Lab
	identity spa.Identity
	folder   string
	rules    string
	last     time.Time // of a knock
}

// person is somebody with a key.
type person struct {
	name   string
	signer ssh.Signer
}

func newKeyed(t *testing.T) *keyed {
	t.Helper()
	k := &keyed{Lab: lab.New(t), folder: t.TempDir()}
	var err error
	k.identity, err = spa.NewIdentity()
	lab.Must(t, err)
	lab.WriteFile(t, k.path("identity"), string(k.identity.Text()), 0o600)
	k.rules = k.WriteRules(fmt.Sprintf(`
wall { identity = %q }
door "ssh" {
  ports  = [22]
  window = "1h"
  keys { authorized = [%q] }
}
`, k.path("identity"), k.path("people")))
	k.ServeTCP(22)
	return k
}

func (k *keyed) path(name string) string { return filepath.Join(k.folder, name) }

func newPerson(t *testing.T, name string) person {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	lab.Must(t, err)
	signer, err := ssh.NewSignerFromSigner(private)
	lab.Must(t, err)
	return person{name, signer}
}

// admit writes the people file.
func (k *keyed) admit(people ...person) {
	k.T.Helper()
	var text strings.Builder
	for _, p := range people {
		fmt.Fprintf(&text, "%s %s\n", strings.TrimSpace(string(ssh.MarshalAuthorizedKey(p.signer.PublicKey()))), p.name)
	}
	lab.WriteFile(k.T, k.path("people"), text.String(), 0o600)
}

// knock returns the datagram of a person. Each is at least a millisecond later than the one
// before, as those of a client are.
func (k *keyed) knock(p person) string {
	k.T.Helper()
	now := time.Now()
	if at := k.last.Add(time.Millisecond); now.Before(at) {
		now = at
	}
	k.last = now
	b, err := spa.Seal(k.identity.Public(), spa.Knock{What: spa.Open, Time: now, Door: spa.HashDoor("ssh")}, p.signer.PublicKey(),
		func(data []byte) (*ssh.Signature, error) { return p.signer.Sign(rand.Reader, data) })
	lab.Must(k.T, err)
	return string(b)
}

const keyPort = 62201

// A client may connect right after its datagram: its SYN waits until the datagram is
// verified. Each try is from another source, as an open window would hide a failure.
func TestASignedKnockOpensForTheFirstSYN(t *testing.T) {
	const tries = 200
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		t.Run(server.String(), func(t *testing.T) {
			k := newKeyed(t)
			alice := newPerson(t, "alice@laptop")
			k.admit(alice)
			d := k.RunFile(k.rules)
			for n := range tries {
				source, datagram := lab.Source(n+1, server), k.knock(alice)
				if err := k.OnFirstSYNAfter(source, server, 22, func() error { return lab.SendData(source, server, keyPort, datagram) }); err != nil {
					t.Fatalf("try %d of %d: %v", n+1, tries, err)
				}
			}
			if got := d.Status().Doors[0].Counters.Opened; got != tries {
				t.Errorf("%d windows were opened", got)
			}
			d.WaitFor("accepted", "source="+lab.Source(tries, server).String()+" ", "person=alice@laptop", "key="+ssh.FingerprintSHA256(alice.signer.PublicKey()))
		})
	}
}

// A datagram opens once: not again, not from elsewhere, not after a reload, and not for the
// next daemon, however the first one ended.
func TestACopiedDatagramIsRefused(t *testing.T) {
	t.Parallel()
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		t.Run(server.String(), func(t *testing.T) {
			t.Parallel()
			k := newKeyed(t)
			alice := newPerson(t, "alice")
			k.admit(alice)
			d := k.RunFile(k.rules)
			datagram := k.knock(alice)
			k.SendDatagram(lab.Source(1, server), server, keyPort, datagram)
			d.WaitFor("opened", "person=alice")
			copied := func(n int, when string) {
				t.Helper()
				thief := lab.Source(n, server)
				k.SendDatagram(thief, server, keyPort, datagram)
				d.WaitFor("replayed", "source="+thief.String()+" ", "person=alice")
				if k.AdmitsAtOnce(thief, server, 22) {
					t.Errorf("%s: the thief is admitted", when)
				}
			}
			copied(2, "at once")
			k.RunOnServer("reload", "--control", d.Control)
			copied(3, "after a reload")
			if err := d.Stop(syscall.SIGKILL); err == nil {
				t.Error("killed without an error")
			}
			d = k.RunFile(k.rules)
			copied(4, "after kill -9")
			if w := d.Status().Windows; len(w) != 1 || w[0].Person != "alice" || w[0].Key != ssh.FingerprintSHA256(alice.signer.PublicKey()) {
				t.Errorf("the window has lost its person: %+v", w)
			}
			k.SendDatagram(lab.Source(4, server), server, keyPort, k.knock(alice))
			d.WaitFor("opened", "source="+lab.Source(4, server).String()+" ")
		})
	}
}

// Whoever deletes a line locks the person out at the next reload, whatever daemon opened the
// window.
func TestADeletedLineClosesTheWindow(t *testing.T) {
	t.Parallel()
	k := newKeyed(t)
	alice, bob := newPerson(t, "alice"), newPerson(t, "bob")
	k.admit(alice, bob)
	d := k.RunFile(k.rules)
	sources := map[string]netip.Addr{"alice": lab.Source(1, lab.Server4), "bob": lab.Source(2, lab.Server4)}
	for _, p := range []person{alice, bob} {
		k.SendDatagram(sources[p.name], lab.Server4, keyPort, k.knock(p))
		d.WaitFor("opened", "person="+p.name)
	}
	k.admit(bob)
	k.RunOnServer("reload", "--control", d.Control)
	d.WaitFor("closed", "person=alice", "code=no-longer")
	if w := k.KernelWindows(); len(w) != 1 || w[0].Person.Name != "bob" {
		t.Errorf("windows in the kernel: %+v", w)
	}
	if k.AdmitsAtOnce(sources["alice"], lab.Server4, 22) || !k.Admits(sources["bob"], lab.Server4, 22) {
		t.Error("the wrong one is out")
	}

	// A line that is deleted while no daemon runs.
	d.Stop(syscall.SIGKILL)
	k.admit(alice)
	d = k.RunFile(k.rules)
	d.WaitFor("closed", "person=bob", "code=no-longer")
	if w := k.KernelWindows(); len(w) != 0 {
		t.Errorf("windows in the kernel: %+v", w)
	}
}

// The kernel passes on only datagrams of the two sizes. Those without the tag are neither
// counted nor told.
func TestGarbageIsNotHeard(t *testing.T) {
	t.Parallel()
	k := newKeyed(t)
	alice, eve := newPerson(t, "alice"), newPerson(t, "eve")
	k.admit(alice)
	d := k.RunFile(k.rules)
	source := lab.Source(1, lab.Server4)
	for _, size := range []int{1, spa.ShortSize - 1, spa.ShortSize, spa.ShortSize + 1, spa.LongSize} {
		garbage := make([]byte, size)
		rand.Read(garbage)
		k.SendDatagram(source, lab.Server4, keyPort, string(garbage))
	}
	k.SendDatagram(source, lab.Server4, keyPort, k.knock(eve)) // nobody knows her key
	k.SendDatagram(source, lab.Server4, keyPort, k.knock(alice))
	d.WaitFor("opened", "person=alice")
	if n := d.Logged("source=" + source.String() + " "); n != 2 { // knock, opened
		t.Errorf("%d events:\n%s", n, d.Log)
	}
	if c := d.Status().Doors[0].Counters; c.Resets != 0 || c.Knocks != 1 {
		t.Errorf("counters: %+v", c)
	}
}

// explain says of a person what came of the knocks, and close closes what the person has open.
func TestExplainAndCloseKnowPersons(t *testing.T) {
	t.Parallel()
	k := newKeyed(t)
	alice := newPerson(t, "alice@laptop")
	k.admit(alice)
	d := k.RunFile(k.rules)
	source := lab.Source(1, lab.Server4)
	k.last = time.Now().Add(10 * time.Minute)
	k.SendDatagram(source, lab.Server4, keyPort, k.knock(alice))
	d.WaitFor("reset", "person=alice@laptop", "code=clock")
	said := k.RunOnServer("explain", "alice@laptop", "--control", d.Control)
	if want := "the knock was rejected: the client's clock is 10m ahead of this host's"; !strings.Contains(said, want) || !strings.Contains(said, source.String()) {
		t.Errorf("it says %q, want %q", said, want)
	}
	k.last = time.Now()
	k.SendDatagram(source, lab.Server4, keyPort, k.knock(alice))
	d.WaitFor("opened", "person=alice@laptop")
	said = k.RunOnServer("close", "ssh", "ALICE@laptop", "--control", d.Control)
	if want := "ssh is closed for " + source.String() + "\n"; said != want {
		t.Errorf("close says %q, want %q", said, want)
	}
	said = k.RunOnServer("close", "ssh", "alice@laptop", "--sessions", "--control", d.Control)
	if want := "ssh was not open for " + source.String() + "\nno connections ended\n"; said != want {
		t.Errorf("close --sessions says %q, want %q", said, want)
	}
}

// Others must not read the identity, and not write the people file.
func TestFilesOfKeysThatOthersCanUse(t *testing.T) {
	t.Parallel()
	k := newKeyed(t)
	k.admit(newPerson(t, "alice"))
	check := func() string {
		out, _ := lab.Knockwall("check", "--config", k.rules).CombinedOutput()
		return string(out)
	}
	if out := check(); strings.Contains(out, "Error") {
		t.Fatal(out)
	}
	for name, mode := range map[string]os.FileMode{"identity": 0o604, "people": 0o662} {
		lab.Must(t, os.Chmod(k.path(name), mode))
		if out := check(); !strings.Contains(out, "Error") || !strings.Contains(out, k.path(name)) || !strings.Contains(out, "chmod") {
			t.Errorf("%s with mode %o: %s", name, mode, out)
		}
		lab.Must(t, os.Chmod(k.path(name), 0o600))
	}
	secret := strings.TrimSpace(strings.TrimPrefix(string(k.identity.Text()), "kw1-private:"))
	lab.WriteFile(t, k.path("people"), string(k.identity.Text()), 0o600)
	if out := check(); !strings.Contains(out, "Private key") || strings.Contains(out, secret) {
		t.Errorf("an identity as people file: %s", out)
	}
}
