//go:build linux

// Package demo shows knockwall at work between two hosts, which are network namespaces of
// this machine.
package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/client"
	"github.com/knockwall/knockwall/internal/netlab"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

// Run shows the demo in the present network namespace, which must be a new one
// ([netlab.Inside]), and describes each step on out.
func Run(ctx context.Context, out io.Writer) error {
	d := demo{out: out, start: time.Now()}
	if err := d.run(ctx); err != nil {
		return fmt.Errorf("the demo failed: %w", err)
	}
	return nil
}

const rules = `door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  window   = "1s"
}
`

var (
	serverAddr = netip.MustParsePrefix("192.0.2.1/24")
	clientAddr = netip.MustParsePrefix("192.0.2.2/24")
	door       = netip.AddrPortFrom(serverAddr.Addr(), 22)
	knocks     = []packet.Port{{Number: 4113, Protocol: packet.TCP}, {Number: 27911, Protocol: packet.UDP}, {Number: 1840, Protocol: packet.TCP}}
)

// silence is how long the demo waits for an answer that must not come.
const silence = 500 * time.Millisecond

// demo is one run of the demo.
type demo struct {
	out    io.Writer
	start  time.Time
	client *netlab.Host
}

// tell writes one step, with the time since the start.
func (d *demo) tell(format string, a ...any) {
	fmt.Fprintf(d.out, "%6.3fs  %s\n", time.Since(d.start).Seconds(), fmt.Sprintf(format, a...))
}

func (d *demo) run(ctx context.Context) error {
	fmt.Fprintf(d.out, "Two hosts in a network of their own: a server at %s, a client at %s.\n"+
		"On the server a program listens on port 22. This is the rule file:\n\n    %s\n",
		serverAddr.Addr(), clientAddr.Addr(), strings.ReplaceAll(strings.TrimSpace(rules), "\n", "\n    "))
	fmt.Fprintln(d.out)

	server, err := netlab.Here()
	if err != nil {
		return err
	}
	if d.client, err = netlab.NewHost(); err != nil {
		return err
	}
	defer d.client.Close()
	if _, _, err := netlab.Link(server, d.client, []netip.Prefix{serverAddr}, []netip.Prefix{clientAddr}); err != nil {
		return err
	}
	service, err := net.Listen("tcp", door.String())
	if err != nil {
		return err
	}
	defer service.Close()
	go serveEcho(service)

	stop, err := d.putUp(ctx)
	if err != nil {
		return err
	}
	return errors.Join(d.visit(ctx), stop())
}

// putUp puts the wall up and returns a function that stops it.
func (d *demo) putUp(ctx context.Context) (stop func() error, err error) {
	folder, err := os.MkdirTemp("", "knockwall-demo-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "ssh.hcl")
	if err := os.WriteFile(path, []byte(rules), 0o600); err != nil {
		return nil, err
	}
	loaded := ruleset.Load(path)
	if loaded.Config == nil {
		return nil, loaded.Diagnostics
	}
	kernel, err := nft.OpenKernel()
	if err != nil {
		return nil, err
	}
	events := audit.NewBuffer(trail{d})
	w := wall.New(wall.KernelEdges(kernel), events)
	if err := w.Apply(loaded.Config); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	return func() error {
		cancel()
		err := <-done
		events.Close()
		return errors.Join(err, kernel.Close())
	}, nil
}

// trail prints the daemon's audit trail between the steps of the client.
type trail struct{ d *demo }

func (t trail) Record(e audit.Event) {
	if e.Kind == audit.Stopped {
		return // it is about a wall that disappears with its network
	}
	_, line, _ := strings.Cut(e.String(), " ")
	t.d.tell("  the daemon: %s", strings.Join(strings.Fields(line), " "))
}

// visit does the client's steps and checks the results.
func (d *demo) visit(ctx context.Context) error {
	if err := d.expectSilence("A stranger connects to port 22."); err != nil {
		return err
	}

	d.tell("The client knocks at %s, %s and %s, and connects at once.", knocks[0], knocks[1], knocks[2])
	var session net.Conn
	var knocked, connected time.Time
	err := d.client.Do(func() (err error) {
		err = client.Knock(ctx, serverAddr.Addr(), knocks, client.Pace{}, func(packet.Port) {})
		if err != nil {
			return err
		}
		knocked = time.Now()
		session, err = net.DialTimeout("tcp", door.String(), 5*time.Second)
		connected = time.Now()
		return err
	})
	if err != nil {
		return err
	}
	defer session.Close()
	first := "on its first SYN"
	if connected.Sub(knocked) >= time.Second {
		first = "when it sent its SYN again"
	}
	d.tell("It is let in %s, %.1f ms after the last knock.", first, float64(connected.Sub(knocked).Microseconds())/1000)
	if err := d.talk(session, "hello"); err != nil {
		return err
	}

	d.tell("The client waits 1s, until its window is over.")
	select {
	case <-time.After(time.Until(connected.Add(time.Second + 100*time.Millisecond))):
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := d.expectSilence("The client connects again, without knocking."); err != nil {
		return err
	}
	return d.talk(session, "still here")
}

// expectSilence connects to the door, which must not answer.
func (d *demo) expectSilence(what string) error {
	d.tell("%s", what)
	return d.client.Do(func() error {
		conn, err := net.DialTimeout("tcp", door.String(), silence)
		if err == nil {
			conn.Close()
			return errors.New("the connection was let in")
		}
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			return fmt.Errorf("the connection was answered: %w", err)
		}
		d.tell("No answer, as if the port did not exist.")
		return nil
	})
}

func (d *demo) talk(session net.Conn, words string) error {
	session.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := fmt.Fprintln(session, words); err != nil {
		return err
	}
	answer, err := bufio.NewReader(session).ReadString('\n')
	if err != nil {
		return fmt.Errorf("the session does not work: %w", err)
	}
	d.tell("The session works: the server answers %q with %q.", words, strings.TrimSpace(answer))
	return nil
}

func serveEcho(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			io.Copy(conn, conn)
		}()
	}
}
