package sessions

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
)

// For a while after an RST from the server, conntrack takes a SYN for a packet of the old
// connection. It is a new connection nevertheless.
func TestASynAfterAResetIsANewConnection(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	lab.Must(t, l.Server.Do(func() error {
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
	d := l.Run(`door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  window   = "5s"
}`)
	connect := func() error {
		return l.Client.Do(func() error {
			dialer := net.Dialer{Timeout: lab.Short, LocalAddr: &net.TCPAddr{IP: lab.Client4.AsSlice(), Port: 50000}}
			conn, err := dialer.Dial("tcp4", netip.AddrPortFrom(lab.Server4, 22).String())
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
	l.Knock(lab.Client4, lab.Server4, lab.Knocks...)
	lab.Must(t, connect())
	d.WaitForExpiry()
	if err := connect(); err == nil {
		t.Error("the same source port gets in after the window has expired")
	}
}

// A connection tracking helper admits no stranger as related to another connection.
func TestNobodyIsAdmittedAsRelated(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	l.ServeTCP(2222)
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
	lab.Must(t, l.Server.Do(listener))
	cmd := exec.Command(lab.NeedsProgram(t, "nft"), "-f", "-")
	cmd.Stdin = strings.NewReader(`table ip helped {
	ct helper ftp { type "ftp" protocol tcp; }
	chain pre { type filter hook prerouting priority filter; tcp dport 21 ct helper set "ftp"; }
	chain in { type filter hook input priority filter; ct state related counter; }
}`)
	lab.Must(t, lab.StartOn(l.Server, cmd))
	if err := cmd.Wait(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("CI's kernel has an FTP helper: %v", err)
		}
		t.Skip("this kernel has no FTP helper: CONFIG_NF_CONNTRACK_FTP")
	}
	l.Run(lab.SSHRules)
	for _, word := range []string{"OTHER", "DOOR"} {
		control, err := l.Dial(lab.Client4, lab.Server4, 21, lab.Deadline)
		lab.Must(t, err)
		defer control.Close()
		control.SetReadDeadline(time.Now().Add(lab.Deadline))
		lines := bufio.NewReader(control)
		_, err = lines.ReadString('\n')
		lab.Must(t, err)
		fmt.Fprintf(control, "%s\r\n", word)
		_, err = lines.ReadString('\n')
		lab.Must(t, err)
	}
	if !l.Admits(lab.Client4, lab.Server4, 2222) {
		t.Error("the neighbouring port is out of reach")
	}
	if listing := l.Nft("list", "table", "ip", "helped"); !strings.Contains(listing, "ct state related counter packets") ||
		strings.Contains(listing, "counter packets 0 ") {
		t.Fatalf("the helper made nothing related, so this tests nothing:\n%s", listing)
	}
	if l.AdmitsAtOnce(lab.Client4, lab.Server4, 22) {
		t.Error("a stranger gets in as related")
	}
}
