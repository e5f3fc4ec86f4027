//go:build linux

package main

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
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/client"
	"github.com/knockwall/knockwall/internal/netlab"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

func demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Show knockwall at work with two hosts in a private network",
		Long: `demo creates two hosts as network namespaces, puts up a wall on one of them, and
knocks at it from the other, on this machine's real kernel. It needs no root. It
changes nothing outside of the network that it creates and removes.`,
		Example: "  knockwall demo",
		Args:    noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if !netlab.Inside() {
				return demoInNamespaces(c)
			}
			d := demo{out: c.OutOrStdout(), start: time.Now()}
			if err := d.run(c.Context()); err != nil {
				return fmt.Errorf("the demo failed: %w", err)
			}
			return nil
		},
	}
}

func demoInNamespaces(c *cobra.Command) error {
	runtime.LockOSThread() // the child dies with the thread that started it
	child, err := netlab.Command("demo")
	if err != nil {
		return err
	}
	child.Stdout, child.Stderr = c.OutOrStdout(), c.ErrOrStderr()
	if err := child.Run(); err != nil {
		return errSaid
	}
	return nil
}

const demoRules = `door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  window   = "1s"
}
`

var (
	demoServer = netip.MustParsePrefix("192.0.2.1/24")
	demoClient = netip.MustParsePrefix("192.0.2.2/24")
	demoDoor   = netip.AddrPortFrom(demoServer.Addr(), 22)
	demoKnocks = []packet.Port{{Number: 4113, Protocol: packet.TCP}, {Number: 27911, Protocol: packet.UDP}, {Number: 1840, Protocol: packet.TCP}}
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
		demoServer.Addr(), demoClient.Addr(), strings.ReplaceAll(strings.TrimSpace(demoRules), "\n", "\n    "))
	fmt.Fprintln(d.out)

	server, err := netlab.Here()
	if err != nil {
		return err
	}
	if d.client, err = netlab.NewHost(); err != nil {
		return err
	}
	defer d.client.Close()
	if _, _, err := netlab.Link(server, d.client, []netip.Prefix{demoServer}, []netip.Prefix{demoClient}); err != nil {
		return err
	}
	service, err := net.Listen("tcp", demoDoor.String())
	if err != nil {
		return err
	}
	defer service.Close()
	go serveEcho(service)

	stop, err := d.raise(ctx)
	if err != nil {
		return err
	}
	return errors.Join(d.visit(ctx), stop())
}

// raise puts the wall up and returns a function that stops it.
func (d *demo) raise(ctx context.Context) (stop func() error, err error) {
	folder, err := os.MkdirTemp("", "knockwall-demo-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	rules := filepath.Join(folder, "ssh.hcl")
	if err := os.WriteFile(rules, []byte(demoRules), 0o600); err != nil {
		return nil, err
	}
	loaded := ruleset.Load(rules)
	if loaded.Config == nil {
		return nil, loaded.Diagnostics
	}
	kernel, err := nft.OpenKernel()
	if err != nil {
		return nil, err
	}
	trail := audit.NewBuffer(demoTrail{d})
	w := wall.New(wall.KernelEdges(kernel), trail)
	if err := w.Apply(loaded.Config); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	return func() error {
		cancel()
		err := <-done
		trail.Close()
		return errors.Join(err, kernel.Close())
	}, nil
}

// demoTrail prints the daemon's audit trail between the steps of the client.
type demoTrail struct{ d *demo }

func (t demoTrail) Record(e audit.Event) {
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

	d.tell("The client knocks at %s, %s and %s, and connects at once.", demoKnocks[0], demoKnocks[1], demoKnocks[2])
	var session net.Conn
	var knocked, connected time.Time
	err := d.client.Do(func() (err error) {
		err = client.Knock(ctx, demoServer.Addr(), demoKnocks, client.Pace{}, func(packet.Port) {})
		if err != nil {
			return err
		}
		knocked = time.Now()
		session, err = net.DialTimeout("tcp", demoDoor.String(), 5*time.Second)
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
		conn, err := net.DialTimeout("tcp", demoDoor.String(), silence)
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
