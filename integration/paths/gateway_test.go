package paths

import (
	"fmt"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

// A gateway guards a host behind it by the address in `to`. It does not guard the same
// port of other hosts and of itself.
func TestAGatewayGuardsAHostBehindIt(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	l.AddInside(22)
	if !l.Admits(lab.Client4, lab.Inside, 22) {
		t.Fatal("without a wall the host behind the gateway is out of reach, so that this tests nothing")
	}
	l.Run(fmt.Sprintf(`door "inside" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  to       = [%q]
}`, lab.Inside))
	if l.AdmitsAtOnce(lab.Client4, lab.Inside, 22) {
		t.Error("a stranger gets through the gateway")
	}
	if !l.Admits(lab.Client4, lab.Server4, 22) {
		t.Error("the gateway's own ssh is shut, too")
	}
	l.Knock(lab.Client4, lab.Server4, lab.Knocks...)
	if l.AdmitsAtOnce(lab.Client4, lab.Inside, 22) {
		t.Error("knocks at the gateway itself have opened the door")
	}
	l.Knock(lab.Client4, lab.Inside, lab.Knocks...)
	if !l.Admits(lab.Client4, lab.Inside, 22) {
		t.Error("refused after the knocks")
	}
}

// The wall runs before DNAT: a forwarded port, as Docker publishes one for a container,
// is guarded as the port that clients connect to.
func TestAPublishedPortIsGuarded(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.AddInside(80)
	l.LoadNft(fmt.Sprintf(`table ip nat {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		fib daddr type local tcp dport 8080 dnat to %s:80
	}
}`, lab.Inside))
	if !l.Admits(lab.Client4, lab.Server4, 8080) {
		t.Fatal("without a wall the published port is out of reach, so that this tests nothing")
	}
	l.Run(`door "web" {
  ports    = [8080]
  sequence = [4113, "27911/udp", 1840]
}`)
	if l.AdmitsAtOnce(lab.Client4, lab.Server4, 8080) {
		t.Error("a stranger gets in to the published port")
	}
	l.Knock(lab.Client4, lab.Server4, lab.Knocks...)
	if !l.Admits(lab.Client4, lab.Server4, 8080) {
		t.Error("refused after the knocks")
	}
}
