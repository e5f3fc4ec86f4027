package share

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
)

// The example of a pair, as its files have it: when the host that has the address dies, a
// client with an open window goes on at the other one, and knocks no more.
func TestAPairOfHostsWithOneAddress(t *testing.T) {
	lab.NeedsProgram(t, "nats-server")
	lab.NeedsProgram(t, "knockwall-share")
	lab.NeedsProgram(t, "keepalived")
	openssl := lab.NeedsProgram(t, "openssl")
	client := netip.MustParseAddr("192.0.2.100")
	f := newLAN(t, client)

	// The key is made as the example says.
	text := example(t, "pair/knockwall.hcl", nil)
	_, command, _ := strings.Cut(text, "#     openssl ")
	command, _, found := strings.Cut(command, "\n")
	if !found {
		t.Fatalf("the example has no command for its key:\n%s", text)
	}
	made := exec.Command(openssl, strings.Fields(command)...)
	made.Dir = f.folder
	if out, err := made.CombinedOutput(); err != nil {
		t.Fatalf("openssl %s: %v: %s", command, err, out)
	}

	var hosts []*lanHost
	for i := range 2 {
		hosts = append(hosts, f.newLANHost(string(rune('a'+i)), netip.AddrFrom4([4]byte{192, 0, 2, byte(11 + i)})))
	}
	for _, h := range hosts {
		h.serveNATS("pair/nats.conf", map[string]string{"/etc/nats": f.folder})
		h.shareAs("pair/knockwall.hcl")
	}
	for _, h := range hosts {
		h.hears(1)
	}
	for _, h := range hosts {
		h.keepAlive("pair/keepalived.conf", map[string]string{"eth0": h.link})
	}
	shared := netip.MustParseAddr("192.0.2.10")
	dies, lives := roles(hosts, shared)

	if dies.AdmitsAtOnce(client, shared, 22) {
		t.Fatal("the door is open before a knock")
	}
	t.Logf("%s has the address", dies.name)
	lab.Must(t, dies.OnFirstSYN(client, shared, lab.TCP(26183), lab.TCP(4406), lab.TCP(19537)))
	eventually.True(t, "the other host has the window", func() bool { return lives.isOpen(client) })

	dies.die()
	died := time.Now()
	eventually.True(t, "the other host takes the address over", func() bool { return lives.has(shared) })
	t.Logf("the other host has the address %s after the first one died", time.Since(died))
	if !lives.AdmitsWithin(client, shared, 22, lab.Deadline/12) {
		t.Error("a client with a window is not let in at the other host")
	}
	lives.daemon.WaitFor("accepted", client.String())
	if n := lives.daemon.Logged("knock", client.String()); n > 0 {
		t.Errorf("the other host has heard %d knocks", n)
	}
}
