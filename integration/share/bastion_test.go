package share

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
)

// The example of a bastion, as its files have it: a client knocks at the bastion, and is let
// in at ten hosts, at which nobody has knocked.
func TestABastionThatOpensTenHosts(t *testing.T) {
	for _, program := range []string{"nats-server", "knockwall-share", "nk", "openssl"} {
		lab.NeedsProgram(t, program)
	}
	client, address := netip.MustParseAddr("192.0.2.100"), netip.MustParseAddr("192.0.2.1")
	f := newLAN(t, client)
	hosts := []*lanHost{f.newLANHost("bastion", address)}
	for i := range 10 {
		hosts = append(hosts, f.newLANHost(fmt.Sprintf("host%d", i+1), netip.AddrFrom4([4]byte{192, 0, 2, byte(11 + i)})))
	}
	bastion := hosts[0]

	// The keys are made as the example says.
	_, command, _ := strings.Cut(example(t, "bastion/bastion.hcl", nil), "#     sh keys.sh ")
	command, _, found := strings.Cut(command, "\n")
	if !found {
		t.Fatal("the example has no command for its keys")
	}
	script, err := filepath.Abs("../../examples/bastion/keys.sh")
	lab.Must(t, err)
	made := exec.Command("sh", append([]string{script}, strings.Fields(command)...)...)
	made.Dir = f.folder
	if out, err := made.CombinedOutput(); err != nil {
		t.Fatalf("keys.sh %s: %v: %s", command, err, out)
	}

	nats := filepath.Join(f.folder, "nats.conf")
	lab.Must(t, os.WriteFile(nats, []byte(example(t, "bastion/nats.conf", map[string]string{"/etc/nats": f.folder})), 0o600))
	log := bastion.run(lab.NeedsProgram(t, "nats-server"), "-c", nats)
	eventually.True(t, "the NATS server is ready", func() bool { return strings.Contains(log.String(), "Server is ready") })
	for i, h := range hosts {
		file, changes := "bastion/host.hcl", map[string]string{"/etc/knockwall.secrets": f.folder, `group   =`: fmt.Sprintf("name = %q\n  group   =", h.name)}
		if i == 0 {
			file = "bastion/bastion.hcl"
		} else {
			changes["host1.nk"] = h.name + ".nk"
		}
		h.daemon = h.Run(example(t, file, changes))
		h.share()
	}
	for _, h := range hosts {
		h.hears(10)
	}

	last := hosts[10]
	if last.AdmitsAtOnce(client, last.v4, 22) {
		t.Fatal("a door is open before a knock")
	}
	began := time.Now()
	first := func() error { return sequenceAt(client, address, 26183, 4406, 19537) }
	for _, h := range hosts[1:] {
		if err := h.OnFirstSYNAfter(client, h.v4, 22, first); err != nil {
			t.Fatalf("%s: %v", h.name, err)
		}
		first = func() error { return nil } // one knock is for all
	}
	t.Logf("one client was let in at ten hosts %s after its knock", time.Since(began))
	for _, h := range hosts[1:] {
		if w, ok := h.window(client); !ok || w.Origin != "bastion" {
			t.Errorf("%s: %+v", h.name, w)
		}
		if n := h.daemon.Logged("knock", client.String()); n > 0 {
			t.Errorf("%s has heard %d knocks", h.name, n)
		}
	}
	// What is closed there is closed everywhere.
	bastion.knockwall("close", "ssh", client.String())
	for _, h := range hosts {
		eventually.True(t, h.name+" is closed", func() bool { return !h.isOpen(client) })
	}
}

// sequenceAt knocks at TCP ports from the caller's host.
func sequenceAt(from, to netip.Addr, ports ...uint16) error {
	for _, p := range ports {
		if err := lab.SendKnock(from, to, lab.TCP(p)); err != nil {
			return err
		}
	}
	return nil
}
