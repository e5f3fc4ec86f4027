package paths

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/packet"
)

// Ways around a carelessly built wall. Each test tries one.

// A UDP service also receives packets to broadcast, multicast and anycast addresses, so a
// door guards them all.
func TestADoorGuardsWhatIsNoAddressOfTheHost(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeUDP(5353, netip.IPv6Unspecified())
	lab.Must(t, l.Server.Do(func() error { return lab.WriteSysctl("ipv6/conf/all/forwarding", "1") })) // for the anycast address
	destinations := []string{"192.0.2.1", "192.0.2.255", "255.255.255.255", "224.0.0.1", "2001:db8::1", "2001:db8::", "ff02::1"}
	answered := func(to string) bool {
		return l.Client.Do(func() error {
			conn, err := net.ListenUDP("udp", nil)
			if err != nil {
				return err
			}
			defer conn.Close()
			raw, err := conn.SyscallConn()
			if err != nil {
				return err
			}
			addr := netip.MustParseAddr(to)
			raw.Control(func(fd uintptr) {
				link, _ := netlink.LinkByName("b" + strings.TrimPrefix(l.ServerLink, "a"))
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
				unix.BindToDevice(int(fd), link.Attrs().Name)
			})
			if _, err := conn.WriteToUDPAddrPort([]byte("ping"), netip.AddrPortFrom(addr, 5353)); err != nil {
				return err
			}
			conn.SetReadDeadline(time.Now().Add(lab.Short))
			_, _, err = conn.ReadFromUDPAddrPort(make([]byte, 16))
			return err
		}) == nil
	}
	heard := 0
	for _, to := range destinations {
		if answered(to) {
			heard++
		} else {
			t.Logf("without a wall, %s is not answered here", to)
		}
	}
	if heard < 4 {
		t.Fatalf("without a wall %d of %d are answered, so that this tests too little", heard, len(destinations))
	}
	l.Run(`door "mdns" {
  ports    = ["5353/udp"]
  sequence = [4113, "27911/udp", 1840]
}`)
	for _, to := range destinations {
		if answered(to) {
			t.Errorf("a stranger is answered by way of %s", to)
		}
	}
}

// A door that rejects does not reveal its knocks: a source that touched one gets its
// answer as fast as others.
func TestARejectingDoorRevealsNoKnocks(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	l.Run(`wall { hold = "1s" }
door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  closed   = "reject"
}`)
	for n, knocks := range [][]packet.Port{nil, {lab.TCP(5000)}, {lab.TCP(4113)}, {lab.UDP(27911)}, {lab.TCP(4113), lab.UDP(27911)}} {
		from := lab.Source(n+1, lab.Server4)
		l.Knock(from, lab.Server4, knocks...)
		start := time.Now()
		_, err := l.Dial(from, lab.Server4, 22, lab.Deadline)
		if err == nil || !strings.Contains(err.Error(), "refused") {
			t.Fatalf("after %v: %v", knocks, err)
		}
		// The hold is a second. An answer after half of it or more shows a difference.
		if took := time.Since(start); took > 500*time.Millisecond {
			t.Errorf("after %v the answer takes %s", knocks, took)
		}
	}
	l.Knock(lab.Client4, lab.Server4, lab.TCP(4113), lab.UDP(27911), lab.TCP(1840))
	eventually.True(t, "who has knocked gets in", func() bool { return l.AdmitsAtOnce(lab.Client4, lab.Server4, 22) })
}

// A window belongs to the prefix for which it was opened. After the rule file's prefix
// has changed, no other source inherits it.
func TestAnotherPrefixInheritsNoWindow(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	rules := func(bits int) string {
		return fmt.Sprintf("door \"ssh\" {\n ports = [22]\n sequence = [4113, \"27911/udp\", 1840]\n source_prefix = { ipv4 = %d }\n}", bits)
	}
	d := l.Run(rules(32))
	l.Knock(lab.Source(1, lab.Server4), lab.Server4, lab.Knocks...)
	d.WaitFor("opened")
	d.Stop(syscall.SIGKILL)
	d = l.Run(rules(16))
	if l.AdmitsAtOnce(lab.Source(2, lab.Server4), lab.Server4, 22) {
		t.Error("a neighbour has inherited the window")
	}
	d.Stop(syscall.SIGKILL)
	d = l.Run(rules(16))
	l.Knock(lab.Source(1, lab.Server4), lab.Server4, lab.Knocks...)
	d.WaitFor("opened", "10.1.0.0/16")
	d.Stop(syscall.SIGKILL)
	l.Run(rules(16))
	if !l.Admits(lab.Source(2, lab.Server4), lab.Server4, 22) {
		t.Error("the same prefix's window was lost")
	}
}
