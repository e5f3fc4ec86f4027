package paths

import (
	"fmt"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/packet"
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

// A door of the gateway and one of a host behind it may have the same port. Whoever opens one is
// not let through the other, also if the SYN waits when the knocks are complete.
func TestOpeningAGatewayOpensNoHostBehindIt(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	l.AddInside(22)
	d := l.Run(fmt.Sprintf(`wall { hold = "1s" }
door "own" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
}
door "inside" {
  ports    = [22]
  sequence = [5113, "28911/udp", 2840]
  to       = [%q]
}`, lab.Inside))
	through := make(chan bool)
	go func() { through <- l.AdmitsWithin(lab.Client4, lab.Inside, 22, 3*time.Second) }()
	eventually.True(t, "the SYN waits", func() bool {
		doors := d.Status().Doors
		return doors[0].Counters.Held+doors[1].Counters.Held > 0
	})
	l.Knock(lab.Client4, lab.Server4, lab.Knocks...)
	if <-through {
		t.Error("knocks at the gateway have opened the host behind it")
	}
	if !l.Admits(lab.Client4, lab.Server4, 22) {
		t.Error("they have not opened the gateway")
	}
	l.Knock(lab.Client4, lab.Inside, packet.Port{Number: 5113, Protocol: packet.TCP}, packet.Port{Number: 28911, Protocol: packet.UDP}, packet.Port{Number: 2840, Protocol: packet.TCP})
	if !l.Admits(lab.Client4, lab.Inside, 22) {
		t.Error("refused after the knocks at the host behind")
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
