package integration

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/nft"
)

// kernelWindows returns the open windows in the server's kernel.
func (l *lab) kernelWindows() []nft.Window {
	l.t.Helper()
	var windows []nft.Window
	must(l.t, l.server.Do(func() error {
		k, err := nft.OpenKernel()
		if err != nil {
			return err
		}
		defer k.Close()
		s, err := k.Standing("knockwall")
		if err == nil && s != nil {
			windows = s.Windows
		}
		return err
	}))
	return windows
}

// nft runs nft on the server and returns its output.
func (l *lab) nft(arguments ...string) string {
	l.t.Helper()
	cmd := exec.Command(needs(l.t, "nft"), arguments...)
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	must(l.t, on(l.server, cmd))
	if err := cmd.Wait(); err != nil {
		l.t.Fatalf("nft %s: %v\n%s", strings.Join(arguments, " "), err, &problem)
	}
	return out.String()
}

// windowEvents receives events of windows that open on a host.
type windowEvents struct{ conn *netlink.Conn }

// newWindowEvents listens on the caller's host.
func newWindowEvents() (*windowEvents, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	return &windowEvents{conn}, conn.JoinGroup(unix.NFNLGRP_NFTABLES)
}

// wait waits until a set gets an element.
func (e *windowEvents) wait(timeout time.Duration) error {
	e.conn.SetReadDeadline(time.Now().Add(timeout))
	for {
		messages, err := e.conn.Receive()
		if err != nil {
			return err
		}
		for _, m := range messages {
			if m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWSETELEM {
				return nil
			}
		}
	}
}

func (e *windowEvents) close() { e.conn.Close() }

// owned reports whether this kernel supports table ownership.
func (l *lab) owned() (owned bool) {
	l.t.Helper()
	must(l.t, l.server.Do(func() error {
		k, err := nft.OpenKernel()
		if err == nil {
			owned = k.Features().Ownership
			k.Close()
		}
		return err
	}))
	return owned
}

// needsOwnership skips the test if the kernel has no table ownership. CI's kernel has it.
func (l *lab) needsOwnership(t *testing.T) {
	t.Helper()
	if l.owned() {
		return
	}
	const why = "this kernel lets no table be one process's own: Linux 6.9 does"
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// changing matches the parts of a listing that change by themselves: counters and set
// elements.
var changing = regexp.MustCompile(`(?s)packets \d+ bytes \d+|\n\s*elements = \{.*?\}`)
