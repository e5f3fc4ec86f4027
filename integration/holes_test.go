package integration

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/packet"
)

// Ways around a carelessly built wall. Each test tries one.

// A UDP service also receives packets to broadcast, multicast and anycast addresses, so a
// door guards them all.
func TestADoorGuardsWhatIsNoAddressOfTheHost(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serveUDP(5353, netip.IPv6Unspecified())
	must(t, l.server.Do(func() error { return writeSysctl("ipv6/conf/all/forwarding", "1") })) // for the anycast address
	destinations := []string{"192.0.2.1", "192.0.2.255", "255.255.255.255", "224.0.0.1", "2001:db8::1", "2001:db8::", "ff02::1"}
	answered := func(to string) bool {
		return l.client.Do(func() error {
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
				link, _ := netlink.LinkByName("b" + strings.TrimPrefix(l.serverLink, "a"))
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
				unix.BindToDevice(int(fd), link.Attrs().Name)
			})
			if _, err := conn.WriteToUDPAddrPort([]byte("ping"), netip.AddrPortFrom(addr, 5353)); err != nil {
				return err
			}
			conn.SetReadDeadline(time.Now().Add(short))
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
	l.run(`door "mdns" {
  ports    = ["5353/udp"]
  sequence = [4113, "27911/udp", 1840]
}`)
	for _, to := range destinations {
		if answered(to) {
			t.Errorf("a stranger is answered by way of %s", to)
		}
	}
}

// For a while after an RST from the server, conntrack takes a SYN for a packet of the old
// connection. It is a new connection nevertheless.
func TestASynAfterAResetIsANewConnection(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	must(t, l.server.Do(func() error {
		listener, err := net.Listen("tcp", ":22")
		if err != nil {
			return err
		}
		t.Cleanup(func() { listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				conn.Read(make([]byte, 1))
				conn.(*net.TCPConn).SetLinger(0) // sends an RST
				conn.Close()
			}
		}()
		return nil
	}))
	d := l.run(`door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  window   = "1s"
}`)
	connect := func() error {
		return l.client.Do(func() error {
			dialer := net.Dialer{Timeout: short, LocalAddr: &net.TCPAddr{IP: client4.AsSlice(), Port: 50000}}
			conn, err := dialer.Dial("tcp4", netip.AddrPortFrom(server4, 22).String())
			if err != nil {
				return err
			}
			defer conn.Close()
			conn.Write([]byte("x"))
			if _, err := io.ReadAll(conn); err == nil {
				return fmt.Errorf("the server did not reset the connection")
			}
			return nil
		})
	}
	l.knock(client4, server4, survivalKnocks...)
	must(t, connect())
	d.waitForEnd()
	if err := connect(); err == nil {
		t.Error("the same source port gets in after the window's end")
	}
}

// A connection tracking helper admits no stranger as related to another connection.
func TestNobodyIsAdmittedAsRelated(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(22)
	l.serve(2222)
	listener := func() (err error) {
		greeter, err := net.Listen("tcp", ":21")
		if err != nil {
			return err
		}
		t.Cleanup(func() { greeter.Close() })
		go func() {
			for {
				conn, err := greeter.Accept()
				if err != nil {
					return
				}
				// The helper reads from the second line on. Then comes passive mode with
				// the door's port or its neighbour's.
				fmt.Fprintf(conn, "220 ready\r\n")
				b := make([]byte, 64)
				if n, err := conn.Read(b); err == nil && n > 0 {
					port := 22
					if strings.HasPrefix(string(b), "OTHER") {
						port = 2222
					}
					fmt.Fprintf(conn, "227 Entering Passive Mode (192,0,2,1,%d,%d).\r\n", port>>8, port&255)
				}
			}
		}()
		return nil
	}
	must(t, l.server.Do(listener))
	cmd := exec.Command(needs(t, "nft"), "-f", "-")
	cmd.Stdin = strings.NewReader(`table ip helped {
	ct helper ftp { type "ftp" protocol tcp; }
	chain pre { type filter hook prerouting priority filter; tcp dport 21 ct helper set "ftp"; }
	chain in { type filter hook input priority filter; ct state related counter; }
}`)
	must(t, on(l.server, cmd))
	if err := cmd.Wait(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("CI's kernel has an FTP helper: %v", err)
		}
		t.Skip("this kernel has no FTP helper: CONFIG_NF_CONNTRACK_FTP")
	}
	l.run(clientRules)
	for _, word := range []string{"OTHER", "DOOR"} {
		control, err := l.dial(client4, server4, 21, deadline)
		must(t, err)
		defer control.Close()
		control.SetReadDeadline(time.Now().Add(deadline))
		lines := bufio.NewReader(control)
		_, err = lines.ReadString('\n')
		must(t, err)
		fmt.Fprintf(control, "%s\r\n", word)
		_, err = lines.ReadString('\n')
		must(t, err)
	}
	if !l.letsIn(client4, server4, 2222) {
		t.Error("the neighbour is out of reach")
	}
	if listing := l.nft("list", "table", "ip", "helped"); !strings.Contains(listing, "ct state related counter packets") ||
		strings.Contains(listing, "counter packets 0 ") {
		t.Fatalf("the helper made nothing related, so that this tests nothing:\n%s", listing)
	}
	if l.admits(client4, server4, 22) {
		t.Error("a stranger gets in as related")
	}
}

// A door that rejects does not reveal its knocks: a source that touched one gets its
// answer as fast as others.
func TestARejectingDoorTellsNoKnocks(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(22)
	l.run(`wall { hold = "1s" }
door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  closed   = "reject"
}`)
	for n, knocks := range [][]packet.Port{nil, {tcp(5000)}, {tcp(4113)}, {udp(27911)}, {tcp(4113), udp(27911)}} {
		from := nth(n+1, server4)
		l.knock(from, server4, knocks...)
		start := time.Now()
		_, err := l.dial(from, server4, 22, deadline)
		if err == nil || !strings.Contains(err.Error(), "refused") {
			t.Fatalf("after %v: %v", knocks, err)
		}
		// The hold is a second. An answer after half of it or more shows a difference.
		if took := time.Since(start); took > 500*time.Millisecond {
			t.Errorf("after %v the answer takes %s", knocks, took)
		}
	}
	l.knock(client4, server4, tcp(4113), udp(27911), tcp(1840))
	eventually(t, "who has knocked gets in", func() bool { return l.admits(client4, server4, 22) })
}

// A window belongs to the prefix for which it was opened. After the rule file's prefix
// has changed, no other source inherits it.
func TestAnotherPrefixInheritsNoWindow(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(22)
	rules := func(bits int) string {
		return fmt.Sprintf("door \"ssh\" {\n ports = [22]\n sequence = [4113, \"27911/udp\", 1840]\n source_prefix = { ipv4 = %d }\n}", bits)
	}
	d := l.run(rules(32))
	l.knock(nth(1, server4), server4, survivalKnocks...)
	d.waitFor("opened")
	d.end(syscall.SIGKILL)
	d = l.run(rules(16))
	if l.admits(nth(2, server4), server4, 22) {
		t.Error("a neighbour has inherited the window")
	}
	d.end(syscall.SIGKILL)
	d = l.run(rules(16))
	l.knock(nth(1, server4), server4, survivalKnocks...)
	d.waitFor("opened", "10.1.0.0/16")
	d.end(syscall.SIGKILL)
	l.run(rules(16))
	if !l.letsIn(nth(2, server4), server4, 22) {
		t.Error("the same prefix's window was lost")
	}
}

// The daemon does not start beside another wall's table, even its own under a former
// name: both would queue to the same numbers.
func TestAWallOfAnotherNameIsNotBuiltOver(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	d := l.run(misuseRules)
	d.end(syscall.SIGTERM)
	before := l.nft("list", "ruleset")
	l.fails("wall { table = \"house\" }\n"+misuseRules, filepath.Join(l.folder, "other"),
		"table inet knockwall", "nft delete table inet knockwall")
	if after := l.nft("list", "ruleset"); after != before {
		t.Errorf("the ruleset has changed to\n%s", after)
	}
}

// When the terminal or the reader of its messages disappears, the daemon stops cleanly or
// goes on.
func TestTheTerminalGoes(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(22)
	d := l.run(survivalRules(`on_stop = "remove"`, "1s"))
	if err := d.end(syscall.SIGHUP); err != nil {
		t.Errorf("after SIGHUP the daemon ends with %v", err)
	}
	if !l.letsIn(client4, server4, 22) {
		t.Error("after SIGHUP the wall stands, and was to go with the daemon")
	}

	reader := exec.Command("sh", "-c", `"$0" run --config "$1" --control "$2" 2>&1 | head -1`,
		knockwall().Path, l.rules(survivalRules("", "30s")), filepath.Join(l.folder, "piped"))
	reader.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(t, on(l.server, reader))
	t.Cleanup(func() {
		syscall.Kill(-reader.Process.Pid, syscall.SIGKILL)
		reader.Wait()
	})
	eventually(t, "the wall stands again", func() bool { return !l.admits(client4, server4, 22) })
	for n := range 3 {
		l.knock(nth(n+1, server4), server4, survivalKnocks...)
		eventually(t, "with nobody to read its messages, the daemon opens", func() bool { return l.admits(nth(n+1, server4), server4, 22) })
	}
}

// A packet to a trap counts even if it comes in fragments, behind extension headers,
// twice, or from neighbours in the same source prefix. A restart or a reload ends no
// penalty.
func TestWaysAroundTraps(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(22)
	const rules = `door "ssh" {
  ports    = [22]
  sequence = [7000, 8000, 9000]
  traps    = [7001]
  source_prefix = { ipv4 = 24, ipv6 = 128 }
}`
	d := l.run(rules)
	knocks := []packet.Port{tcp(7000), tcp(8000), tcp(9000)}
	syn := func(from, to netip.Addr) forge.Segment {
		return forge.Segment{From: from, To: to, SourcePort: 40000, Port: tcp(7001), Flags: packet.SYN}
	}
	fragmented, twice, neighbour := nth(1<<8, server4), nth(2<<8, server4), nth(3<<8, server4)
	send := func(packets ...[]byte) {
		t.Helper()
		for _, b := range packets {
			to := server4
			if b[0]>>4 == 6 {
				to = server6
			}
			socket := l.rawSocket(to)
			must(t, unix.Sendto(socket, b, 0, sockaddr(to, 0)))
			must(t, unix.Close(socket))
		}
	}
	send(fragments(syn(fragmented, server4).Bytes())...)
	l.send(syn(twice, server4), syn(twice, server4))
	l.knock(neighbour.Next(), server4, tcp(7001))
	tried := []netip.Addr{fragmented, twice, neighbour}
	for _, header := range [][]byte{
		{unix.IPPROTO_HOPOPTS, unix.IPPROTO_TCP, 0, 1, 4, 0, 0, 0, 0}, // PadN
		{unix.IPPROTO_DSTOPTS, unix.IPPROTO_TCP, 0, 1, 4, 0, 0, 0, 0},
		{unix.IPPROTO_ROUTING, unix.IPPROTO_TCP, 0, 4, 0, 0, 0, 0, 0}, // no segments left
		{unix.IPPROTO_FRAGMENT, unix.IPPROTO_TCP, 0, 0, 0, 0, 0, 0, 9},
	} {
		from := nth(1+len(tried), server6)
		b := syn(from, server6).Bytes()
		b[6], b[5] = header[0], b[5]+8 // next header, payload length
		send(slices.Insert(b, 40, header[1:]...))
		tried = append(tried, from)
	}
	honest := 9 << 8 // each in its own prefix
	knockAll := func(when string) {
		t.Helper()
		for _, source := range tried {
			to := server4
			if source.Is6() {
				to = server6
			}
			l.knock(source, to, knocks...)
		}
		honest += 1 << 8
		must(t, l.onFirstSYN(nth(honest, server4), server4, knocks...)) // its knocks are handled after theirs
		for _, w := range l.kernelWindows() {
			if slices.Contains(tried, w.Source.Addr()) {
				t.Errorf("%s: %s has tried the trap, and opens the door", when, w.Source)
			}
		}
	}
	knockAll("at first")
	l.onServer("reload", "--control", d.control)
	knockAll("after a reload")
	d.end(syscall.SIGKILL)
	l.run(rules)
	knockAll("after a restart")
}

// fragments cuts an IPv4 packet into the smallest possible fragments.
func fragments(b []byte) (pieces [][]byte) {
	const header, size = 20, 8
	for at := header; at < len(b); at += size {
		end := min(at+size, len(b))
		piece := append(slices.Clone(b[:header]), b[at:end]...)
		place := uint16(at-header) / size
		if end < len(b) {
			place |= 0x2000 // more fragments
		}
		binary.BigEndian.PutUint16(piece[2:], uint16(len(piece)))
		binary.BigEndian.PutUint16(piece[4:], 1)
		binary.BigEndian.PutUint16(piece[6:], place)
		binary.BigEndian.PutUint16(piece[10:], 0)
		binary.BigEndian.PutUint16(piece[10:], forge.Checksum(piece[:header]))
		pieces = append(pieces, piece)
	}
	return pieces
}
