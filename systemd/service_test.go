package systemd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/audit"
)

// patience is how long a test waits for what it expects.
const patience = 20 * time.Second

// manager receives what services tell a service manager.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
}

// newManager makes a manager for the Services of the test.
func newManager(t *testing.T) *manager {
	t.Helper()
	// Not in t.TempDir, whose path may be too long for a socket.
	folder, err := os.MkdirTemp("", "kw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	path := filepath.Join(folder, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return &manager{t, conn}
}

// next waits for the next message.
func (m *manager) next() string {
	m.t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		m.t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := m.conn.Read(b)
	if err != nil {
		m.t.Fatalf("systemd is told nothing: %v", err)
	}
	return string(b[:n])
}

func (m *manager) expect(want ...string) {
	m.t.Helper()
	if got := m.next(); got != strings.Join(want, "\n") {
		m.t.Errorf("systemd is told %q, want %q", got, want)
	}
}

// nothing checks that the manager got no more messages. Earlier messages have arrived
// already, because sending them blocks.
func (m *manager) nothing(when string) {
	m.t.Helper()
	for _, told := range m.heard() {
		m.t.Errorf("%s systemd is told %q", when, told)
	}
}

// heard returns the messages that have arrived.
func (m *manager) heard() (all []string) {
	m.t.Helper()
	raw, err := m.conn.SyscallConn()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		for b := make([]byte, 4096); ; {
			n, _, err := unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT)
			if err != nil {
				return
			}
			all = append(all, string(b[:n]))
		}
	}); err != nil {
		m.t.Fatal(err)
	}
	return all
}

// status is a status that a test can change.
type status struct {
	mu   sync.Mutex
	text string
}

func (s *status) set(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = text
}

func (s *status) get() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text
}

// running runs f until the test ends, and waits for f then.
func running(t *testing.T, f func(ctx context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		wait(t, done, "it does not end with its context")
	})
}

// wait waits for a channel to be closed.
func wait(t *testing.T, done <-chan struct{}, otherwise string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Error(otherwise)
	}
}

func TestSystemdIsToldHowTheDaemonIsAndItsStatusWhenThatHasChanged(t *testing.T) {
	m := newManager(t)
	text := &status{text: "1 door guarded, 0 windows open"}
	s := NewService(text.get)
	s.Ready()
	m.expect("READY=1", "STATUS=1 door guarded, 0 windows open")
	s.Ready()
	m.expect("READY=1")
	text.set("2 doors guarded, 0 windows open")
	s.Ready()
	m.expect("READY=1", "STATUS=2 doors guarded, 0 windows open")
	text.set("2 doors guarded, 1 window open")
	s.Stopping()
	m.expect("STOPPING=1", "STATUS=2 doors guarded, 1 window open")
	s.Ready() // of a late reload
	m.nothing("after it has begun to stop")
}

func TestSystemdIsToldWhenAReloadBegan(t *testing.T) {
	m := newManager(t)
	s := NewService(func() string { return "x" })
	s.Ready()
	m.expect("READY=1", "STATUS=x")
	before := monotonic(t)
	s.Reloading()
	after := monotonic(t)
	got := regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=([0-9]+)$`).FindStringSubmatch(m.next())
	if got == nil {
		t.Fatal("it is told something else")
	}
	if at, err := strconv.ParseInt(got[1], 10, 64); err != nil || at < before || at > after {
		t.Errorf("at %s, %v; it was between %d and %d", got[1], err, before, after)
	}
	s.Ready()
	m.expect("READY=1")
}

// monotonic returns the microseconds of CLOCK_MONOTONIC, with which systemd compares.
func monotonic(t *testing.T) int64 {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return now.Nano() / 1000
}

func TestTheStatusIsToldWhenAnEventHasChangedIt(t *testing.T) {
	m := newManager(t)
	text := &status{text: "0"}
	s := NewService(text.get)
	s.Ready()
	m.expect("READY=1", "STATUS=0")
	running(t, s.TellStatus)
	for n, kind := range []audit.Kind{audit.Opened, audit.Closed, audit.Expired, audit.Reloaded} {
		want := strconv.Itoa(n + 1)
		text.set(want)
		s.Record(audit.Event{Kind: kind})
		m.expect("STATUS=" + want)
	}
	text.set("5")
	s.Changed()
	m.expect("STATUS=5")
	// An unchanged status is not sent. The next message is the change after it.
	s.Record(audit.Event{Kind: audit.Opened})
	text.set("6")
	s.Record(audit.Event{Kind: audit.Opened})
	m.expect("STATUS=6")
	m.nothing("once more")
}

// Kinds that strangers can cause in any number do not even make it read the status.
func TestOtherEventsDoNotMakeTheStatusBeTold(t *testing.T) {
	changing := map[audit.Kind]bool{audit.Opened: true, audit.Closed: true, audit.Expired: true, audit.Reloaded: true}
	for _, row := range audit.Table() {
		kind := row.Kind
		s := NewService(nil)
		s.Record(audit.Event{Kind: kind})
		s.Record(audit.Event{Kind: kind}) // nobody listens, and it does not wait
		if got := len(s.stir) > 0; got != changing[kind] {
			t.Errorf("%s: the status may have changed: %t", kind, got)
		}
	}
}

// However fast windows open, systemd gets the status a few times a second, and the last
// one.
func TestTheStatusIsToldAFewTimesASecond(t *testing.T) {
	m := newManager(t)
	text := &status{text: "0"}
	s := NewService(text.get)
	began := time.Now()
	running(t, s.TellStatus)
	const events = 5000
	for n := range events {
		text.set(strconv.Itoa(n + 1))
		s.Record(audit.Event{Kind: audit.Opened})
	}
	told, last := 0, 0
	for last != events {
		n, err := strconv.Atoi(strings.TrimPrefix(m.next(), "STATUS="))
		if err != nil || n <= last {
			t.Fatalf("after %d comes %d: %v", last, n, err)
		}
		last = n
		told++
	}
	if most := int(time.Since(began)/statusInterval) + 1; told > most {
		t.Errorf("it is told %d times, want %d at most", told, most)
	}
	m.nothing("after the last")
}

// watch enables a watchdog with a time-out in microseconds.
func watch(t *testing.T, microseconds int) {
	t.Helper()
	t.Setenv("WATCHDOG_USEC", strconv.Itoa(microseconds))
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
}

func TestTheWatchdogIsFedWhileTheDaemonIsAlive(t *testing.T) {
	m := newManager(t)
	watch(t, 20_000)
	var mu sync.Mutex
	var health error
	asked := 0
	alive := func() error {
		mu.Lock()
		defer mu.Unlock()
		asked++
		return health
	}
	dead := errors.New("knocks wait, and the daemon handles none of them")
	told := make(chan error, 1000)
	s := NewService(func() string { return "x" })
	running(t, func(ctx context.Context) { s.Watch(ctx, alive, func(err error) { told <- err }) })
	for range 5 {
		m.expect("WATCHDOG=1")
	}
	mu.Lock()
	if asked < 5 {
		t.Errorf("it was fed 5 times, and asked %d times whether it is alive", asked)
	}
	health = dead
	mu.Unlock()
	for range 3 { // it is asked again and again
		select {
		case err := <-told:
			if !errors.Is(err, dead) {
				t.Errorf("why it is not fed: %v", err)
			}
		case <-time.After(patience):
			t.Fatal("nobody is told that it hangs")
		}
	}
	m.heard() // messages before it hung, which have arrived by now
	for range 3 {
		<-told
	}
	m.nothing("while it hangs")
	mu.Lock()
	health = nil
	mu.Unlock()
	m.expect("WATCHDOG=1")
}

func TestTheWatchdogIsFedSeveralTimesWithinItsPatience(t *testing.T) {
	m := newManager(t)
	const microseconds = 400_000
	watch(t, microseconds)
	s := NewService(func() string { return "x" })
	began := time.Now()
	running(t, func(ctx context.Context) { s.Watch(ctx, func() error { return nil }, nil) })
	for range 8 {
		m.expect("WATCHDOG=1")
	}
	// A busy machine delays the messages. Nothing makes them earlier.
	if took := time.Since(began); took < 2*microseconds*time.Microsecond-microseconds*time.Microsecond/4 {
		t.Errorf("it is fed 8 times in %s", took)
	}
}

func TestWithoutAWatchdogNobodyFeedsIt(t *testing.T) {
	for name, env := range map[string][2]string{
		"there is none":              {"", ""},
		"it watches another process": {"20000", "1"},
		"its patience is no number":  {"soon", ""},
		"it has no patience":         {"0", ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t)
			t.Setenv("WATCHDOG_USEC", env[0])
			t.Setenv("WATCHDOG_PID", env[1])
			done := make(chan struct{})
			go func() {
				defer close(done)
				NewService(nil).Watch(context.Background(), func() error {
					t.Error("somebody asks whether it is alive")
					return nil
				}, nil)
			}()
			wait(t, done, "it watches")
			m.nothing("all the same")
		})
	}
}

func TestWithoutSystemdNothingHappens(t *testing.T) {
	for name, path := range map[string]string{
		"none listens": "", "it is gone": filepath.Join(t.TempDir(), "gone"), "it is no path": strings.Repeat("x", 200),
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("NOTIFY_SOCKET", path)
			watch(t, 1000)
			s := NewService(func() string { return "x" })
			s.Ready()
			s.Reloading()
			s.Stopping()
			s.Record(audit.Event{Kind: audit.Opened})
			running(t, s.TellStatus)
			asked := make(chan struct{}, 1000)
			running(t, func(ctx context.Context) {
				s.Watch(ctx, func() error {
					select {
					case asked <- struct{}{}:
					default:
					}
					return nil
				}, nil)
			})
			for range 3 { // it goes on, though nobody listens
				<-asked
			}
		})
	}
}

// A Service is safe for concurrent use.
func TestAServiceIsForManyAtOnce(t *testing.T) {
	m := newManager(t)
	text := &status{text: "0"}
	s := NewService(text.get)
	running(t, s.TellStatus)
	var all sync.WaitGroup
	const tellers, times = 4, 50
	for n := range tellers {
		all.Go(func() {
			for i := range times {
				text.set(fmt.Sprint(n, i))
				s.Reloading()
				s.Record(audit.Event{Kind: audit.Opened})
				s.Ready()
			}
		})
	}
	told := map[string]int{}
	last := ""
	for told["READY=1"] < tellers*times {
		first, rest, _ := strings.Cut(m.next(), "\n")
		told[first]++
		for line := range strings.Lines(first + "\n" + rest) {
			if now, ok := strings.CutPrefix(strings.TrimSpace(line), "STATUS="); ok {
				if now == last {
					t.Errorf("the status %q is told twice", now)
				}
				last = now
			}
		}
	}
	all.Wait()
	if told["RELOADING=1"] != tellers*times {
		t.Errorf("told: %v", told)
	}
}
