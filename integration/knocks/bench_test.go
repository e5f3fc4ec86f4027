package knocks

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
)

// BenchmarkLastKnockToWindow measures the time from just before the last knock is sent
// until the kernel has the window, according to nftables events. It reports the median
// and the 95th percentile in microseconds.
func BenchmarkLastKnockToWindow(b *testing.B) {
	l := lab.New(b)
	l.Run(lab.SSHRules)
	var events *windowEvents
	lab.Must(b, l.Server.Do(func() (err error) {
		events, err = newWindowEvents()
		return err
	}))
	defer events.close()

	var took []time.Duration
	n := 0
	for b.Loop() {
		n++
		from := lab.Source(n%65535+1, lab.Server4)
		l.Knock(from, lab.Server4, lab.TCP(4113), lab.UDP(27911))
		var last time.Time
		lab.Must(b, l.Client.Do(func() error {
			last = time.Now()
			return lab.SendKnock(from, lab.Server4, lab.TCP(1840))
		}))
		lab.Must(b, events.wait(lab.Deadline))
		took = append(took, time.Since(last))
	}
	slices.Sort(took)
	for name, q := range map[string]int{"p50": 50, "p95": 95} {
		b.ReportMetric(float64(took[len(took)*q/100].Microseconds()), name+"-µs")
	}
	b.ReportMetric(0, "ns/op") // it would include the first knocks
}

// BenchmarkConnect compares connect() to an open door with connect() to an unguarded
// port, in turns. It reports both medians and their ratio.
func BenchmarkConnect(b *testing.B) {
	l := lab.New(b)
	l.ServeTCP(22)
	l.ServeTCP(2222)
	l.Run(`door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  window   = "1h"
}`)
	l.Knock(lab.Client4, lab.Server4, lab.TCP(4113), lab.UDP(27911), lab.TCP(1840))
	if !l.Admits(lab.Client4, lab.Server4, 22) {
		b.Fatal("refused after the knocks")
	}
	took := map[int][]time.Duration{}
	lab.Must(b, l.Client.Do(func() error {
		for b.Loop() {
			for _, port := range []int{22, 2222} {
				fd, err := lab.BoundSocket(lab.Client4, lab.Server4, unix.SOCK_STREAM)
				if err != nil {
					return err
				}
				unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
				start := time.Now()
				err = lab.ConnectSocket(fd, lab.Sockaddr(lab.Server4, uint16(port)))
				took[port] = append(took[port], time.Since(start))
				unix.Close(fd)
				if err != nil {
					return fmt.Errorf("connecting to %d: %w", port, err)
				}
			}
		}
		return nil
	}))
	median := func(port int) float64 {
		slices.Sort(took[port])
		return float64(took[port][len(took[port])/2].Nanoseconds()) / 1000
	}
	b.ReportMetric(median(22), "door-µs")
	b.ReportMetric(median(2222), "plain-µs")
	b.ReportMetric(median(22)/median(2222), "ratio")
	b.ReportMetric(0, "ns/op")
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
