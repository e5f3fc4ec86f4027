package integration

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// BenchmarkLastKnockToWindow measures the time from just before the last knock is sent
// until the kernel has the window, according to nftables events. It reports the median
// and the 95th percentile in microseconds.
func BenchmarkLastKnockToWindow(b *testing.B) {
	l := newLab(b)
	l.run(clientRules)
	var events *windowEvents
	must(b, l.server.Do(func() (err error) {
		events, err = newWindowEvents()
		return err
	}))
	defer events.close()

	var took []time.Duration
	n := 0
	for b.Loop() {
		n++
		from := nth(n%65535+1, server4)
		l.knock(from, server4, tcp(4113), udp(27911))
		var last time.Time
		must(b, l.client.Do(func() error {
			last = time.Now()
			return knockFrom(from, server4, tcp(1840))
		}))
		must(b, events.wait(deadline))
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
	l := newLab(b)
	l.serve(22)
	l.serve(2222)
	l.run(`door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  window   = "1h"
}`)
	l.knock(client4, server4, tcp(4113), udp(27911), tcp(1840))
	if !l.letsIn(client4, server4, 22) {
		b.Fatal("refused after the knocks")
	}
	took := map[int][]time.Duration{}
	must(b, l.client.Do(func() error {
		for b.Loop() {
			for _, port := range []int{22, 2222} {
				fd, err := boundSocket(client4, server4, unix.SOCK_STREAM)
				if err != nil {
					return err
				}
				unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
				start := time.Now()
				err = connect(fd, sockaddr(server4, uint16(port)))
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

// BenchmarkInstall measures the replacement of the table with 10,000 open windows.
func BenchmarkInstall(b *testing.B) {
	l := newLab(b)
	loaded := ruleset.Load(l.rules(clientRules))
	table := tableAt(b, loaded.Config, time.Now())
	prefix := packet.SourcePrefix{IPv4: 32, IPv6: 128}
	windows := make([]nft.Window, 10000)
	for i := range windows {
		windows[i] = nft.Window{Door: "ssh", Source: prefix.Of(nth(i, server4)), Left: time.Hour}
	}
	must(b, l.server.Do(func() error {
		k, err := nft.OpenKernel()
		if err != nil {
			return err
		}
		defer k.Close()
		for b.Loop() {
			if err := k.Install(table, windows, ""); err != nil {
				return err
			}
		}
		return nil
	}))
}
