package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/packet"
)

// ServeTCP starts an echo service on a TCP port of the server, on every address. It sends
// nothing but answers, no keepalives either: conntrack would learn connections from them.
func (l *Lab) ServeTCP(port int) {
	l.T.Helper()
	Must(l.T, l.Server.Do(func() error {
		config := net.ListenConfig{KeepAlive: -1}
		listener, err := config.Listen(context.Background(), "tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		l.T.Cleanup(func() { listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					io.Copy(conn, conn)
				}()
			}
		}()
		return nil
	}))
}

// ServeUDP starts an echo service on a UDP port and an address of the server.
func (l *Lab) ServeUDP(port int, host netip.Addr) {
	l.T.Helper()
	Must(l.T, l.Server.Do(func() error {
		conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(host, uint16(port))))
		if err != nil {
			return err
		}
		l.T.Cleanup(func() { conn.Close() })
		_ = conn.SetReadBuffer(4 << 20) // as much as possible, for floods
		for range 4 {
			go func() {
				b := make([]byte, 2048)
				for {
					n, from, err := conn.ReadFromUDPAddrPort(b)
					if err != nil {
						return
					}
					conn.WriteToUDPAddrPort(b[:n], from)
				}
			}()
		}
		return nil
	}))
}

// Dial connects from one of the client's addresses. When the connection is closed, the
// client sends an RST.
func (l *Lab) Dial(from, to netip.Addr, port int, timeout time.Duration) (conn *net.TCPConn, err error) {
	err = l.Client.Do(func() error {
		d := net.Dialer{
			Timeout:   timeout,
			LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)),
			Control: func(_, _ string, raw syscall.RawConn) error {
				return raw.Control(func(fd uintptr) { Freebind(int(fd), from) })
			},
		}
		c, err := d.Dial("tcp", netip.AddrPortFrom(to, uint16(port)).String())
		if err == nil {
			conn = c.(*net.TCPConn)
			// Its end must not leave a segment behind for the next step of the test.
			conn.SetLinger(0)
		}
		return err
	})
	return conn, err
}

// OpenSession connects to port 22, and exchanges data. The session lasts as long as the
// test.
func (l *Lab) OpenSession(from, to netip.Addr) net.Conn {
	l.T.Helper()
	conn, err := l.Dial(from, to, 22, Deadline)
	Must(l.T, err)
	l.T.Cleanup(func() { conn.Close() })
	Must(l.T, Exchange(conn))
	return conn
}

// Enter sends Knocks, and then is OpenSession.
func (l *Lab) Enter(from, to netip.Addr) net.Conn {
	l.T.Helper()
	l.Knock(from, to, Knocks...)
	return l.OpenSession(from, to)
}

// AdmitsAtOnce reports whether a new connection succeeds within Short. Use it if the
// connection should fail.
func (l *Lab) AdmitsAtOnce(from, to netip.Addr, port int) bool {
	l.T.Helper()
	return l.AdmitsWithin(from, to, port, Short)
}

// Admits reports whether a new connection succeeds within Deadline. Use it if the
// connection should succeed.
func (l *Lab) Admits(from, to netip.Addr, port int) bool {
	l.T.Helper()
	return l.AdmitsWithin(from, to, port, Deadline)
}

// Admitted is Admits if the connection should succeed, else AdmitsAtOnce.
func (l *Lab) Admitted(want bool, from, to netip.Addr, port int) bool {
	l.T.Helper()
	if want {
		return l.Admits(from, to, port)
	}
	return l.AdmitsAtOnce(from, to, port)
}

// AdmitsWithin reports whether a new connection succeeds within a time.
func (l *Lab) AdmitsWithin(from, to netip.Addr, port int, timeout time.Duration) bool {
	l.T.Helper()
	conn, err := l.Dial(from, to, port, timeout)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// Exchange returns an error if a connection to an echo service does not carry data both
// ways within Deadline.
func Exchange(conn net.Conn) error {
	conn.SetDeadline(time.Now().Add(Deadline))
	return Ping(conn)
}

// ExchangeAndPause is Exchange for loops: it leaves some time to others.
func ExchangeAndPause(session net.Conn) error {
	time.Sleep(time.Millisecond)
	return Exchange(session)
}

// Ping is Exchange without a time limit of its own.
func Ping(conn net.Conn) error {
	if _, err := io.WriteString(conn, "ping"); err != nil {
		return err
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(conn, b); err != nil {
		return err
	}
	if string(b) != "ping" {
		return fmt.Errorf("%q came back", b)
	}
	return nil
}

// OnFirstSYN sends the knocks, if there are any, and connects to port 22 without a pause.
// It returns an error if the SYN was retransmitted.
func (l *Lab) OnFirstSYN(from, to netip.Addr, knocks ...packet.Port) error {
	return l.OnFirstSYNAfter(from, to, 22, func() error {
		for _, p := range knocks {
			if err := SendKnock(from, to, p); err != nil {
				return err
			}
		}
		return nil
	})
}

// OnFirstSYNAfter calls first, and connects to a port without a pause. It returns an error
// if the SYN was retransmitted.
func (l *Lab) OnFirstSYNAfter(from, to netip.Addr, port uint16, first func() error) error {
	return l.Client.Do(func() error {
		fd, err := BoundSocket(from, to, unix.SOCK_STREAM)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		// The end of the connection is not tested.
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		if err := first(); err != nil {
			return err
		}
		if err := ConnectSocket(fd, Sockaddr(to, port)); err != nil {
			return fmt.Errorf("connecting: %w", err)
		}
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return err
		}
		if info.Total_retrans != 0 {
			return fmt.Errorf("let in only after %d retransmissions", info.Total_retrans)
		}
		return nil
	})
}

// EchoesUDP sends one datagram to an echo service, and returns an error if it does not come
// back in time.
func (l *Lab) EchoesUDP(from, to netip.Addr, port uint16, timeout time.Duration) error {
	return l.Client.Do(func() error {
		fd, err := BoundSocket(from, to, unix.SOCK_DGRAM)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		limit := unix.NsecToTimeval(int64(timeout))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
			return err
		}
		if err := unix.Sendto(fd, []byte("ping"), 0, Sockaddr(to, port)); err != nil {
			return err
		}
		b := make([]byte, 4)
		n, err := Receive(fd, b)
		if err == nil && string(b[:n]) != "ping" {
			err = fmt.Errorf("%q came back", b[:n])
		}
		return err
	})
}
