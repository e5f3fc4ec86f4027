package flood

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/nflog"
)

const heardGroup = 7199

// hearing reads an NFLOG group to which the kernel of the server logs packets as they are
// sent, so that none is lost before.
type hearing struct {
	t    testing.TB
	log  *nflog.Log
	fd   int // sends the datagrams
	sent uint32

	mu    sync.Mutex
	gate  sync.Mutex // the handler waits for it
	heard uint32
	lost  uint32
	last  uint32 // number of the last datagram that was handled
	wrong []string
}

func (h *hearing) Logged(prefix []byte, p packet.Packet, data []byte) {
	h.gate.Lock()
	defer h.gate.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heard++
	if string(prefix) != "heard" || p.Port != lab.UDP(4113) || len(data) != 4 {
		h.wrong = append(h.wrong, fmt.Sprintf("%s %+v %x", prefix, p, data))
		return
	}
	n := binary.BigEndian.Uint32(data)
	if n <= h.last {
		h.wrong = append(h.wrong, fmt.Sprintf("%d after %d", n, h.last))
	}
	h.last = n
}

func (h *hearing) Lost(n uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lost += n
}

func (h *hearing) Failed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wrong = append(h.wrong, err.Error())
}

func (h *hearing) counts() (heard, lost uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.heard, h.lost
}

// hear makes the server log datagrams, and reads the log.
func hear(l *lab.Lab) *hearing {
	l.T.Helper()
	h := &hearing{t: l.T}
	lab.Must(l.T, l.Server.Do(func() (err error) {
		if h.log, err = nflog.Listen(heardGroup, h); err != nil {
			return err
		}
		h.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	l.T.Cleanup(func() { h.log.Close(); unix.Close(h.fd) })
	l.LoadNft(fmt.Sprintf(`table inet heard { chain output { type filter hook output priority 0;
		udp dport 4113 log prefix "heard" group %d snaplen 256 drop; }; }`, heardGroup))
	return h
}

// send sends n numbered datagrams. The first one is number 1.
func (h *hearing) send(n int) {
	h.t.Helper()
	to := lab.Sockaddr(netip.MustParseAddr("127.0.0.1"), 4113)
	for range n {
		h.sent++
		// The rule that logs the datagram also drops it.
		if err := unix.Sendto(h.fd, binary.BigEndian.AppendUint32(nil, h.sent), 0, to); err != nil && !errors.Is(err, unix.EPERM) {
			h.t.Fatal(err)
		}
	}
}

// settled waits until all datagrams that were sent have been handled or counted as lost.
func (h *hearing) settled() {
	h.t.Helper()
	eventually.True(h.t, "all datagrams are handled or lost", func() bool {
		heard, lost := h.counts()
		return heard+lost == h.sent && h.log.Progress().Idle
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.wrong) > 0 {
		h.t.Errorf("%d were wrong: %q", len(h.wrong), h.wrong[:min(5, len(h.wrong))])
		h.wrong = nil
	}
	if h.last != h.sent {
		h.t.Errorf("the last one is %d, want %d", h.last, h.sent)
	}
}

// atOnce reports whether the kernel sends each message by itself. In batches it would put a
// few together that follow each other closely.
func (h *hearing) atOnce() bool {
	h.t.Helper()
	before := h.log.Progress().Done
	h.send(5)
	h.settled()
	return h.log.Progress().Done-before == 5
}

// A knock is read at once. When there are very many, they are read in batches, all of them
// and in order. Afterwards each is read at once again.
func TestKnocksComeTogetherOnlyWhileThereAreVeryMany(t *testing.T) {
	l := lab.New(t)
	h := hear(l)
	for range 50 {
		h.send(1)
		h.settled()
	}
	if got := h.log.Progress().Done; got != 50 {
		t.Errorf("50 single datagrams were read as %d", got)
	}
	if !h.atOnce() {
		t.Error("a few datagrams are read as a batch")
	}
	for round := range 3 {
		const many = 100_000
		heard, lost := h.counts()
		datagrams := h.log.Progress().Done
		began := time.Now()
		h.send(many)
		rate := many / time.Since(began).Seconds()
		h.send(1) // its number shows what was lost before it
		h.settled()
		heard2, lost2 := h.counts()
		datagrams = h.log.Progress().Done - datagrams
		each := float64(heard2-heard) / float64(datagrams)
		t.Logf("round %d: %.0f/s, %d datagrams of %.1f messages, %d lost", round, rate, datagrams, each, lost2-lost)
		switch {
		case rate < 40_000:
			t.Logf("that is not fast enough to tell anything")
		case each < 4:
			t.Errorf("%d messages were read as %d datagrams", heard2-heard, datagrams)
		}
		eventually.True(t, "each datagram is read at once again", h.atOnce)
	}
}

// Knocks that did not fit into the socket are counted, to the last one.
func TestLostKnocksAreCounted(t *testing.T) {
	l := lab.New(t)
	h := hear(l)
	for range 2 {
		h.gate.Lock() // so that nobody reads the log
		h.send(100_000)
		h.gate.Unlock()
		// The number of the next knock shows how many were lost before it, if there is room
		// for that knock.
		eventually.True(t, "everything is read", func() bool { return h.log.Progress().Idle })
		h.send(1)
		h.settled()
		if _, lost := h.counts(); lost < 1000 {
			t.Errorf("only %d are lost, which proves nothing", lost)
		}
		eventually.True(t, "each datagram is read at once again", h.atOnce)
	}
}

// isRead waits until somebody reads the group. Closing it earlier would be a race in
// go-nflog, which waits for its WaitGroup while it still adds to it.
func (h *hearing) isRead() {
	h.t.Helper()
	before, _ := h.counts()
	h.send(1)
	eventually.True(h.t, "somebody reads the group", func() bool {
		heard, _ := h.counts()
		return heard > before
	})
}

// Close ends all goroutines that read the log, whatever arrives meanwhile. No handler is
// called afterwards.
func TestAClosedLogIsNotReadAnyMore(t *testing.T) {
	l := lab.New(t)
	h := hear(l)
	for round := range 30 {
		h.isRead()
		if round%2 == 0 {
			h.send(20)
		}
		lab.Must(t, h.log.Close())
		heard, _ := h.counts()
		h.send(20)
		if after, _ := h.counts(); after != heard {
			t.Fatalf("%d were heard after it was closed", after-heard)
		}
		lab.Must(t, l.Server.Do(func() (err error) {
			h.log, err = nflog.Listen(heardGroup, h)
			return err
		}))
	}
	h.isRead()
	lab.Must(t, h.log.Close())
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, wrong := range h.wrong {
		t.Errorf("a handler was called: %s", wrong)
	}
	eventually.True(t, "no goroutine is left", func() bool {
		var b bytes.Buffer
		lab.Must(t, pprof.Lookup("goroutine").WriteTo(&b, 1))
		return !strings.Contains(b.String(), "nfnetlink.") && !strings.Contains(b.String(), "go-nflog")
	})
}
