package control_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/wall"
)

// deadline is how long a test waits for an expected event.
const deadline = 20 * time.Second

// numbered returns an event with a number and a length.
func numbered(n, length int) audit.Event {
	return audit.Event{Time: time.Unix(int64(n), 0), Kind: audit.Accepted, Door: "ssh", Step: n, Steps: 1, Reason: strings.Repeat("x", length)}
}

// follower reads events as they happen.
type follower struct {
	conn    net.Conn
	decoder *json.Decoder
}

// follow requests events as they happen, and waits for the beginning of the answer. After
// that, no event is missed.
func (s *served) follow(t *testing.T) *follower {
	t.Helper()
	conn := s.dial(t)
	if err := conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	return followOver(t, conn)
}

func followOver(t *testing.T, conn net.Conn) *follower {
	t.Helper()
	fmt.Fprint(conn, "GET /v1/events?follow=true HTTP/1.1\r\nHost: knockwall\r\n\r\n")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatalf("answered with %s, %v", response.Status, response.Header)
	}
	return &follower{conn, json.NewDecoder(response.Body)}
}

func (f *follower) next(t *testing.T) audit.Event {
	t.Helper()
	var e audit.Event
	if err := f.decoder.Decode(&e); err != nil {
		t.Fatalf("no event: %v", err)
	}
	return e
}

// skip reads the events that happened before serve returned.
func (f *follower) skip(t *testing.T) {
	t.Helper()
	for _, want := range []audit.Kind{audit.Started, audit.Knock} {
		if e := f.next(t); e.Kind != want {
			t.Fatalf("%s, and not %s", e, want)
		}
	}
}

func TestFollowersMissNothingBetweenPastAndFuture(t *testing.T) {
	s := serve(t)
	// Events are recorded until the last follower has read its first one.
	const events, followers = 900, 8
	var all sync.WaitGroup
	all.Go(func() {
		for n := range events {
			s.History.Record(numbered(n, 0))
			time.Sleep(10 * time.Microsecond)
		}
	})
	for range followers {
		all.Go(func() {
			f := s.follow(t)
			f.skip(t)
			for n := range events {
				if e := f.next(t); e.Step != n {
					t.Errorf("event %d is %s", n, e)
					return
				}
			}
		})
	}
	all.Wait()
}

func TestEventsThatAreNotFollowedEnd(t *testing.T) {
	s := serve(t)
	for n := range 1500 {
		s.History.Record(numbered(n, 0))
	}
	for _, path := range []string{"/v1/events", "/v1/events?follow=false", "/v1/events?follow="} {
		_, body := s.ask(t, http.MethodGet, path, "")
		decoder := json.NewDecoder(strings.NewReader(body))
		// The earlier knock is of another class, so it stays.
		var knock audit.Event
		if err := decoder.Decode(&knock); err != nil || knock.Kind != audit.Knock {
			t.Fatalf("%s: the first event is %s: %v", path, knock, err)
		}
		for n := 500; n < 1500; n++ { // the last thousand
			var e audit.Event
			if err := decoder.Decode(&e); err != nil || e.Step != n {
				t.Fatalf("%s: event %d is %s: %v", path, n, e, err)
			}
		}
		if err := decoder.Decode(&audit.Event{}); !errors.Is(err, io.EOF) {
			t.Errorf("%s: after the last event there is more: %v", path, err)
		}
	}
}

func TestEventsAreSelected(t *testing.T) {
	s := serve(t)
	at := func(door, source string, step int) audit.Event {
		e := audit.Event{Time: time.Now(), Kind: audit.Knock, Door: door, Step: step}
		if source != "" {
			e.Source, _ = packet.ParseSource(source)
		}
		return e
	}
	const base = 100 // the events of the others have lower steps
	for i, e := range []struct{ door, source string }{
		{"ssh", "192.0.2.7"}, {"web", "192.0.2.7"}, {"ssh", "192.0.2.8"}, {"ssh", "2001:db8::/64"}, {"web", ""},
	} {
		s.History.Record(at(e.door, e.source, base+i))
	}
	number := func(n int) *int { return &n }
	sources := func(all ...string) (parsed []packet.Source) {
		for _, text := range all {
			source, err := packet.ParseSource(text)
			if err != nil {
				t.Fatal(err)
			}
			parsed = append(parsed, source)
		}
		return parsed
	}
	for _, test := range []struct {
		name   string
		wanted control.Selection
		steps  []int
	}{
		{"a door", control.Selection{Door: "web"}, []int{1, 4}},
		{"an address", control.Selection{Sources: sources("192.0.2.7")}, []int{0, 1}},
		{"an address in IPv6 clothes", control.Selection{Sources: sources("::ffff:192.0.2.7")}, []int{0, 1}},
		{"an address of a wider source", control.Selection{Sources: sources("2001:db8::7")}, []int{3}},
		{"a prefix", control.Selection{Sources: sources("192.0.2.0/24"), Door: "ssh"}, []int{0, 2}},
		{"two addresses", control.Selection{Sources: sources("192.0.2.8", "2001:db8::7")}, []int{2, 3}},
		{"the last one", control.Selection{Last: number(1)}, []int{4}},
		{"the last one of a door", control.Selection{Door: "ssh", Last: number(1)}, []int{3}},
		{"none", control.Selection{Last: number(0)}, nil},
		{"another door", control.Selection{Door: "mail"}, nil},
	} {
		var got []int
		err := control.NewClient(s.path).Events(t.Context(), test.wanted, func(e audit.Event) error {
			if e.Step >= base {
				got = append(got, e.Step-base)
			}
			return nil
		})
		if err != nil || !slices.Equal(got, test.steps) {
			t.Errorf("%s: %v, want %v: %v", test.name, got, test.steps, err)
		}
	}

	// Later events are selected as well. Follow misses none that comes after its return.
	follow, err := control.NewClient(s.path).Follow(t.Context(), control.Selection{Follow: true, Door: "ssh", Last: number(0)})
	if err != nil {
		t.Fatal(err)
	}
	s.History.Record(at("web", "192.0.2.7", 1))
	s.History.Record(at("ssh", "192.0.2.7", 2))
	enough := errors.New("enough")
	err = follow(func(e audit.Event) error {
		if e.Step != 2 {
			t.Errorf("%s is passed on", e)
		}
		return enough
	})
	if !errors.Is(err, enough) {
		t.Error(err)
	}
}

func TestTheClientFollowsEvents(t *testing.T) {
	s := serve(t)
	enough := errors.New("enough")
	var kinds []audit.Kind
	err := control.NewClient(s.path).Events(t.Context(), control.Selection{Follow: true}, func(e audit.Event) error {
		kinds = append(kinds, e.Kind)
		switch len(kinds) {
		case 2: // the last remembered event: begin to follow
			if _, err := s.Wall.Open("ssh", "192.0.2.7", 0); err != nil {
				return err
			}
		case 3:
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Errorf("Events: %v", err)
	}
	if diff := cmp.Diff([]audit.Kind{audit.Started, audit.Knock, audit.Opened}, kinds); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	kinds = nil
	err = control.NewClient(s.path).Events(t.Context(), control.Selection{}, func(e audit.Event) error {
		kinds = append(kinds, e.Kind)
		return nil
	})
	if err != nil || len(kinds) != 3 {
		t.Errorf("without following: %v, %v", kinds, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = control.NewClient(s.path).Events(ctx, control.Selection{Follow: true}, func(audit.Event) error {
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("when the context ends: %v", err)
	}
}

func TestAFollowerThatDoesNotReadIsToldWhatItMissedAndBlocksNobody(t *testing.T) {
	s := serve(t)
	slow, fast := s.follow(t), s.follow(t)
	fast.skip(t)
	// More than fits into the socket and the follower's buffer: 1,000 events and the
	// kernel's buffers. The fast follower keeps up and misses none.
	const flood = 4000
	for n := range flood {
		s.History.Record(numbered(n, 500))
		if e := fast.next(t); e.Step != n || e.Kind != audit.Accepted {
			t.Fatalf("event %d is %s for who reads", n, e)
		}
	}
	// The slow follower learns of the loss with the next event for which it has room.
	stop := make(chan struct{})
	var more sync.WaitGroup
	more.Go(func() {
		for n := flood; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				s.History.Record(numbered(n, 0))
			}
		}
	})
	defer more.Wait()
	defer close(stop)
	slow.skip(t)
	expected, missed := 0, 0
	for expected <= flood {
		e := slow.next(t)
		if e.Kind == audit.Overloaded {
			missed += e.Count
			expected += e.Count
			continue
		}
		if e.Step != expected {
			t.Fatalf("%s, where %d is expected", e, expected)
		}
		expected++
	}
	if missed == 0 || missed >= flood {
		t.Errorf("it was told of %d missed of %d", missed, flood)
	}
}

func TestNoMoreThan32Follow(t *testing.T) {
	s := serve(t)
	var all []*follower
	for range control.MaxFollowers {
		all = append(all, s.follow(t))
	}
	response, body := s.ask(t, http.MethodGet, "/v1/events?follow=true", "")
	wantRefusal(t, response, body, http.StatusServiceUnavailable, "32 clients follow already")
	// Other requests are still answered, and requests for past events as well.
	for _, path := range []string{"/v1/events", "/v1/status"} {
		if response, body := s.ask(t, http.MethodGet, path, ""); response.StatusCode != http.StatusOK {
			t.Errorf("GET %s: %s %s", path, response.Status, body)
		}
	}
	// All followers get new events, and one that leaves makes room for another.
	s.History.Record(numbered(1, 0))
	for _, f := range all {
		f.skip(t)
		if e := f.next(t); e.Step != 1 {
			t.Errorf("heard %s", e)
		}
	}
	all[0].conn.Close()
	var more *http.Response
	eventually.True(t, "another may follow", func() bool {
		conn := s.dial(t)
		fmt.Fprint(conn, "GET /v1/events?follow=1 HTTP/1.1\r\nHost: knockwall\r\n\r\n")
		var err error
		if more, err = http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
			t.Fatal(err)
		}
		return more.StatusCode == http.StatusOK
	})
}

// A follower's buffer of 1,000 events is freed when the follower leaves.
func TestFollowersThatHaveGoneTakeNoMemory(t *testing.T) {
	s := serve(t)
	inUse := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	first := inUse()
	for range 150 {
		eventually.True(t, "another may follow", func() bool {
			conn := s.dial(t)
			defer conn.Close()
			fmt.Fprint(conn, "GET /v1/events?follow=1 HTTP/1.1\r\nHost: knockwall\r\n\r\n")
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			return response.StatusCode == http.StatusOK
		})
	}
	eventually.True(t, "less than 10 MB are in use for them", func() bool { return inUse() < first+10<<20 })
}

func TestFollowersEndWithTheDaemon(t *testing.T) {
	s := serve(t)
	f := s.follow(t)
	f.skip(t)
	ended := make(chan error, 1)
	following := make(chan struct{})
	begin := sync.OnceFunc(func() { close(following) })
	go func() {
		ended <- control.NewClient(s.path).Events(context.Background(), control.Selection{Follow: true}, func(audit.Event) error {
			begin()
			return nil
		})
	}()
	<-following
	if err := s.stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if err := f.decoder.Decode(&audit.Event{}); !errors.Is(err, io.EOF) {
		t.Errorf("the answer ends with %v", err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("the client says %v", err)
	}
}

// The last event says that the wall is down.
func TestFollowersHearHowItEnds(t *testing.T) {
	for range 20 {
		s := serve(t)
		f := s.follow(t)
		f.skip(t)
		go func() {
			<-s.ended // as the command run does
			_ = s.stop()
		}()
		if _, err := control.NewClient(s.path).Down(t.Context()); err != nil {
			t.Fatal(err)
		}
		var e audit.Event
		if err := f.decoder.Decode(&e); err != nil || e.Kind != audit.Stopped {
			t.Fatalf("heard %s, %v", e, err)
		}
	}
}

// pipes is a listener whose connections do not use the kernel, so that their deadlines
// follow the bubble's clock.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.conns <- server
	return client
}

// inBubble runs a test with a daemon that uses the bubble's clock.
func inBubble(t *testing.T, test func(t *testing.T, d *daemon, dial func() net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon(t, &stillKernel{})
		l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- control.Serve(ctx, l, d.Daemon) }()
		test(t, d, l.dial)
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if err := d.end(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestAFollowerMayHearNothingForHours(t *testing.T) {
	inBubble(t, func(t *testing.T, d *daemon, dial func() net.Conn) {
		conn := dial()
		defer conn.Close()
		f := followOver(t, conn)
		if e := f.next(t); e.Kind != audit.Started {
			t.Errorf("%s", e)
		}
		for n, quiet := range []time.Duration{control.ClientTimeout / 2, control.ClientTimeout * 2, time.Hour} {
			time.Sleep(quiet)
			d.History.Record(numbered(n, 0))
			if e := f.next(t); e.Step != n {
				t.Errorf("after %s: %s", quiet, e)
			}
		}
	})
}

// A reload may take longer than a client may take to read the answer.
func TestAReloadMayTakeItsTime(t *testing.T) {
	inBubble(t, func(t *testing.T, d *daemon, dial func() net.Conn) {
		d.reload = func(time.Duration) (control.Reloaded, error) {
			time.Sleep(6 * control.ClientTimeout)
			return control.Reloaded{Doors: 3}, nil
		}
		conn := dial()
		defer conn.Close()
		go func() { _, _ = io.WriteString(conn, "POST /v1/reload HTTP/1.1\r\nHost: knockwall\r\n\r\n") }()
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if body, err := io.ReadAll(answer.Body); err != nil || !strings.Contains(string(body), `"doors": 3`) {
			t.Errorf("answered: %s, %v", body, err)
		}
	})
}

func TestAFollowerThatReadsNothingForTooLongIsCutOff(t *testing.T) {
	inBubble(t, func(t *testing.T, d *daemon, dial func() net.Conn) {
		conn := dial()
		defer conn.Close()
		f := followOver(t, conn)
		d.History.Record(numbered(1, 1000))
		for n := range 10000 {
			d.History.Record(numbered(n, 1000))
		}
		time.Sleep(control.ClientTimeout + time.Second)
		var err error
		for range 10 {
			if err = f.decoder.Decode(&audit.Event{}); err != nil {
				break
			}
		}
		if err == nil {
			t.Error("it is served still")
		}
		// The slow follower's place is free: all places can be taken.
		for range control.MaxFollowers {
			conn := dial()
			defer conn.Close()
			followOver(t, conn)
		}
	})
}

func TestConnectionsThatAskForNothingAreClosed(t *testing.T) {
	for _, test := range []struct {
		name, sent string
		after      time.Duration
	}{
		{"nothing", "", control.ClientTimeout},
		{"half a request", "GET /v1/sta", control.ClientTimeout},
		{"no end of header", "GET /v1/status HTTP/1.1\r\nHost: knockwall\r\n", control.ClientTimeout},
		{"one request", "GET /v1/windows HTTP/1.1\r\nHost: knockwall\r\n\r\n", control.ClientTimeout},
		{"no body", "POST /v1/windows HTTP/1.1\r\nHost: knockwall\r\nContent-Length: 40\r\n\r\n", control.MaxRefusalDelay},
		{"half a body", "POST /v1/windows HTTP/1.1\r\nHost: knockwall\r\nContent-Length: 40\r\n\r\n{\"door\": ", control.MaxRefusalDelay},
		{"a chunk", "POST /v1/windows HTTP/1.1\r\nHost: knockwall\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", control.MaxRefusalDelay},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, d *daemon, dial func() net.Conn) {
				conn := dial()
				defer conn.Close()
				began := time.Now()
				go func() { _, _ = io.WriteString(conn, test.sent) }()
				_, err := io.ReadAll(conn) // until it is closed
				// The client has a moment to read the answer.
				if took := time.Since(began); took < test.after || took > test.after+time.Second {
					t.Errorf("closed after %s: %v", took, err)
				}
				if got := d.Wall.Windows(wall.WindowQuery{}); len(got) != 0 {
					t.Errorf("windows: %v", got)
				}
			})
		})
	}
}

func TestATrialThatIsNotConfirmedEndsAndIsNotConfirmedAfterwards(t *testing.T) {
	inBubble(t, func(t *testing.T, d *daemon, dial func() net.Conn) {
		conn := dial()
		defer conn.Close()
		answers := bufio.NewReader(conn)
		post := func(path, body string) int {
			t.Helper()
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: knockwall\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
			response, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, response.Body)
			return response.StatusCode
		}
		if code := post("/v1/reload", `{"confirm": "9s"}`); code != http.StatusOK {
			t.Fatalf("reload: %d", code)
		}
		time.Sleep(8 * time.Second)
		if code := post("/v1/reload", ``); code != http.StatusConflict {
			t.Errorf("another reload after 8 s: %d", code)
		}
		time.Sleep(2 * time.Second)
		if code := post("/v1/confirm", ``); code != http.StatusConflict {
			t.Errorf("confirmed after 10 s: %d", code)
		}
		past := d.History.Past()
		if e := past[len(past)-1]; e.Kind != audit.Reloaded || e.Code != audit.CodeNotConfirmed || !e.Failed {
			t.Errorf("the trail says %s", e)
		}
	})
}
