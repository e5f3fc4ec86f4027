package share

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

// daemon is a daemon that answers as the test says. It shares the door ssh.
type daemon struct {
	c   *Companion
	mu  sync.Mutex
	log []string // what the companion logs as failed

	changes []wall.Change                                                      // that a follower gets before the stream ends
	status  func() int                                                         // of the answer to a request of the status
	most    int64                                                              // windows that the door can have
	tell    func(origin string, told []control.Told) (errs []string, code int) // answers
	told    []string
}

func newDaemon(t *testing.T) *daemon {
	t.Helper()
	folder, err := os.MkdirTemp("", "kw-") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{status: func() int { return http.StatusOK }, most: 1000}
	d.tell = func(_ string, told []control.Told) ([]string, int) { return make([]string, len(told)), http.StatusOK }
	mux := http.NewServeMux()
	answer := func(rw http.ResponseWriter, code int, body any) {
		rw.WriteHeader(code)
		json.NewEncoder(rw).Encode(body)
	}
	mux.HandleFunc("GET /v1/status", func(rw http.ResponseWriter, _ *http.Request) {
		answer(rw, d.status(), wall.Status{Doors: []wall.DoorStatus{{Name: "ssh", Shared: true, WindowSeconds: 30}}, Sharing: &wall.Sharing{MaxWindows: d.most}})
	})
	mux.HandleFunc("GET /v1/changes", func(rw http.ResponseWriter, _ *http.Request) {
		for _, c := range d.changes {
			json.NewEncoder(rw).Encode(c)
		}
	})
	mux.HandleFunc("POST /v1/sharing", func(rw http.ResponseWriter, _ *http.Request) { answer(rw, http.StatusOK, struct{}{}) })
	mux.HandleFunc("POST /v1/changes", func(rw http.ResponseWriter, r *http.Request) {
		var body struct {
			Origin  string
			Changes []control.Told
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		d.mu.Lock()
		for _, c := range body.Changes {
			d.told = append(d.told, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", body.Origin, c.Kind, c.Door, c.Source)))
		}
		errs, code := d.tell(body.Origin, body.Changes)
		d.mu.Unlock()
		answer(rw, code, map[string]any{"errors": errs})
	})
	server := &http.Server{Handler: mux}
	go server.Serve(l)
	t.Cleanup(func() {
		server.Close()
		os.RemoveAll(folder)
	})
	d.c = New(Options{Share: &ruleset.Share{Group: "prod", Servers: []string{"nats://127.0.0.1:1"}}, Name: "a", Control: path, Log: func(failed bool, text string) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if failed {
			d.log = append(d.log, text)
		}
	}})
	return d
}

// knows lets the companion know the state of the daemon, without any windows.
func (d *daemon) knows(t *testing.T) {
	t.Helper()
	for _, kind := range []wall.ChangeKind{wall.StateBegins, wall.StateKnown} {
		if err := d.c.changed(t.Context(), wall.Change{Kind: kind}); err != nil {
			t.Fatal(err)
		}
	}
}

// hears lets the companion hear news of the member b.
func (d *daemon) hears(text string) { d.c.heard("knockwall.prod.b.news", []byte(text)) }

// hasTold waits until the companion has told the daemon something that often.
func (d *daemon) hasTold(t *testing.T, what string, times int) {
	t.Helper()
	eventually.True(t, fmt.Sprintf("the daemon is told %q %d times", what, times), func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		n := 0
		for _, told := range d.told {
			if told == what {
				n++
			}
		}
		return n >= times
	})
}

const (
	opensAtB  = `{"run":"x","number":1,"windows":[{"door":"ssh","source":"192.0.2.1","host":"b","stamp":1,"left":20000}]}`
	closesAtB = `{"run":"x","number":2,"windows":[{"door":"ssh","source":"192.0.2.1","host":"b","stamp":2,"closed":true}]}`
)

func TestWhatTheDaemonDoesNotAnswerIsToldAgain(t *testing.T) {
	d := newDaemon(t)
	d.knows(t)
	failures := 2
	d.tell = func(_ string, told []control.Told) ([]string, int) {
		if failures--; failures >= 0 {
			return nil, http.StatusServiceUnavailable
		}
		return make([]string, len(told)), http.StatusOK
	}
	go d.c.tellDaemon(t.Context())
	d.hears(opensAtB)
	d.hears(`{"run":"x","number":2,"used":[{"method":"keys","key":"k","time":"` + time.Now().Format(time.RFC3339) + `"}]}`)
	d.hasTold(t, "b open ssh 192.0.2.1", 2)
	d.hasTold(t, "b used", 2)
}

func TestAWindowThatTheDaemonCouldNotCloseIsClosedLater(t *testing.T) {
	d := newDaemon(t)
	d.knows(t)
	refused := map[wall.ChangeKind]bool{wall.ChangeOpen: true, wall.ChangeClosed: true}
	d.tell = func(_ string, told []control.Told) (errs []string, code int) {
		for _, c := range told {
			errs = append(errs, map[bool]string{true: "it fails"}[refused[c.Kind]])
			refused[wall.ChangeClosed] = refused[wall.ChangeClosed] && c.Kind != wall.ChangeClosed
		}
		return errs, http.StatusOK
	}
	go d.c.tellDaemon(t.Context())
	d.hears(opensAtB)
	d.hasTold(t, "b open ssh 192.0.2.1", 1)
	d.hears(strings.NewReplacer("192.0.2.1", "192.0.2.2", `"number":1`, `"number":2`).Replace(opensAtB))
	d.hasTold(t, "b open ssh 192.0.2.2", 1)
	source, err := packet.ParseSource("192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.c.changed(t.Context(), wall.Change{Kind: wall.ChangeOpen, Door: "ssh", Source: source, Origin: "b", LeftSeconds: 20}); err != nil {
		t.Fatal(err)
	}
	d.hears(closesAtB)
	d.hasTold(t, "b closed ssh 192.0.2.1", 2)
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(d.told); n != 4 { // what it does not open is not told again
		t.Errorf("the daemon was told %q", d.told)
	}
}

// The rules in force say of how many windows others may tell.
func TestTheDaemonSaysHowManyWindowsThereMayBe(t *testing.T) {
	d := newDaemon(t)
	hears := func(from, to int) {
		for n := from; n <= to; n++ {
			d.hears(fmt.Sprintf(`{"run":"x","number":%[1]d,"windows":[{"door":"ssh","source":"192.0.2.%[1]d","host":"b","stamp":1,"left":20000}]}`, n))
		}
	}
	d.most = 5
	d.knows(t)
	hears(1, 10)
	if n := d.c.member.Len(); n != 5 {
		t.Errorf("%d of 10 windows of one host are known where a door can have 5", n)
	}
	d.most = 10 // after a reload
	d.knows(t)
	hears(11, 20)
	if n := d.c.member.Len(); n != 10 {
		t.Errorf("%d windows are known where a door can have 10", n)
	}
}

// Before the first state is known, nobody can say which doors are shared.
func TestBeforeTheStateIsKnownOthersAreNotHeard(t *testing.T) {
	d := newDaemon(t)
	d.hears(opensAtB)
	d.hears(`garbage`)
	if len(d.c.others) != 0 || d.c.member.Len() != 0 || len(d.log) != 0 {
		t.Errorf("members: %v, windows: %d, log: %q", d.c.others, d.c.member.Len(), d.log)
	}
	d.knows(t)
	d.hears(strings.Replace(opensAtB, `"number":1`, `"number":2`, 1))
	if o := d.c.others["b"]; o == nil || !o.behind || !o.all || d.c.member.Len() != 1 {
		t.Errorf("the member is not asked for all: %+v; windows: %d", o, d.c.member.Len())
	}
}

// A member that only sends wrong messages is no new one with each of them.
func TestAMemberOfWhichOnlyWrongMessagesAreHeardIsRemembered(t *testing.T) {
	d := newDaemon(t)
	d.knows(t)
	d.hears(`garbage`)
	if o := d.c.others["b"]; o == nil || time.Since(o.heard) > time.Minute {
		t.Errorf("the member: %+v", o)
	}
}

// Link-local addresses mean other sources at other hosts.
func TestLinkLocalSourcesAreNotShared(t *testing.T) {
	d := newDaemon(t)
	d.knows(t)
	for text, want := range map[string]int{"169.254.1.2": 0, "fe80::1%lo": 0, "192.0.2.1": 1} {
		source, err := packet.ParseSource(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.c.changed(t.Context(), wall.Change{Kind: wall.ChangeOpen, Door: "ssh", Source: source, LeftSeconds: 20}); err != nil {
			t.Fatal(err)
		}
		own := d.c.member.Own()
		n := 0
		for _, s := range own.Statements {
			if s.Source == text {
				n++
			}
		}
		if n != want {
			t.Errorf("%s is told %d times", text, n)
		}
	}
}

// A failure is said again only after there was success.
func TestAFailureThatLastsIsSaidOnce(t *testing.T) {
	d := newDaemon(t)
	d.changes = []wall.Change{{Kind: wall.StateBegins}}
	var requests int
	d.status = func() int {
		d.mu.Lock()
		defer d.mu.Unlock()
		requests++
		return http.StatusServiceUnavailable
	}
	go d.c.follow(t.Context())
	eventually.True(t, "it has tried three times", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return requests == 3
	})
	d.mu.Lock()
	if len(d.log) != 1 {
		t.Errorf("logged: %q", d.log)
	}
	d.log = nil
	d.mu.Unlock()

	said := func() (all []string) {
		d.mu.Lock()
		defer d.mu.Unlock()
		return slices.DeleteFunc(slices.Clone(d.log), func(s string) bool { return !strings.Contains(s, "no NATS server") })
	}
	// Two servers are tried in turn, and one of them may be used in the end.
	began := time.Now()
	for n := range 100 {
		d.c.notConnected(io.EOF)
		d.c.notConnected(&net.OpError{Op: "dial", Err: fmt.Errorf("server %d: connection refused", n)})
	}
	if d.c.sayWhenAway(began.Add(time.Second)); len(said()) != 0 {
		t.Errorf("after a second: %q", said())
	}
	for range 3 {
		d.c.sayWhenAway(began.Add(time.Minute))
	}
	if all := said(); len(all) != 1 || !strings.Contains(all[0], "connection refused") {
		t.Errorf("after a minute: %q", all)
	}
	// What a server answers is told at once, and has a limit.
	for n := range 100 {
		d.c.notConnected(fmt.Errorf("certificate %d is wrong", n/2))
	}
	if all := said(); len(all) != maxFaults || !strings.Contains(all[1], "certificate 0") {
		t.Errorf("logged: %q", all)
	}
}

// A server that takes nothing must not block the companion.
func TestAServerThatTakesNothing(t *testing.T) {
	d := newDaemon(t)
	conn, err := d.c.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if conn.Opts.FlusherTimeout != 2*time.Second {
		t.Errorf("it is waited for %s", conn.Opts.FlusherTimeout)
	}
}

// A member that lives answers pings, and the daemon is told what they measure.
func TestMembersAreMeasured(t *testing.T) {
	d := newDaemon(t)
	d.knows(t)
	d.hears(opensAtB)
	o := d.c.others["b"]
	now := time.Now()
	o.ping, o.pinged = "p", now.Add(-10*time.Millisecond)
	hears := func(what, text string, values ...any) {
		d.c.heard("knockwall.prod.b."+what, fmt.Appendf(nil, text, values...))
	}
	hears("pong.a", `{"run":"x","ping":"other","clock":1,"version":"v9"}`)
	known := d.c.sharing(now)
	if m := known.Members[0]; m.LagSeconds != nil || m.ClockAheadSeconds != nil || m.Version != "" {
		t.Errorf("before it has answered: %+v", m)
	}
	hears("pong.a", `{"run":"x","ping":"p","clock":%d,"version":"v9"}`, now.Add(time.Minute).UnixMilli())
	known = d.c.sharing(now)
	m := known.Members[0]
	if m.Name != "b" || m.Version != "v9" || m.LagSeconds == nil || *m.LagSeconds < 0.005 || *m.LagSeconds > 5 || *m.ClockAheadSeconds < 50 || *m.ClockAheadSeconds > 70 {
		t.Errorf("when it has answered: %+v", m)
	}
	if known.Name != "a" || known.Group != "prod" || known.Connected || known.Count != 1 || known.Received != 3 || known.Namesake {
		t.Errorf("told: %+v", known)
	}
	hears("pong.a", `{"run":"x","ping":"p","clock":1,"version":"v8"}`) // once more
	if m := d.c.sharing(now).Members[0]; m.Version != "v9" {
		t.Errorf("a ping that is not waited for: %+v", m)
	}
	d.c.heard("knockwall.prod.a.news", []byte(opensAtB))
	if !d.c.sharing(now).Namesake || d.c.sharing(now).Count != 1 {
		t.Error("another companion with this host's name is not noticed")
	}
}

// Only what has not come by the beat after the next is lost, as a beat may overtake news.
func TestLostMessagesAreCounted(t *testing.T) {
	d := newDaemon(t)
	d.knows(t)
	news := func(run string, n int) { d.hears(fmt.Sprintf(`{"run":%q,"number":%d}`, run, n)) }
	beat := func(run string, n uint64) {
		d.c.heard("knockwall.prod.b.beat", fmt.Appendf(nil, `{"run":%q,"number":%d}`, run, n))
	}
	lost := func(want, ofB uint64) {
		t.Helper()
		if k := d.c.sharing(time.Now()); k.Lost != want || k.Members[0].Lost != ofB {
			t.Errorf("lost: %d, of b %d, want %d, %d", k.Lost, k.Members[0].Lost, want, ofB)
		}
	}
	beat("x", 7) // those before were for others
	news("x", 8)
	beat("x", 9)
	news("x", 9)
	beat("x", 9)
	lost(0, 0)
	news("x", 12)
	beat("x", 12)
	beat("x", 12)
	lost(2, 2)
	beat("x", 12)
	lost(2, 2)
	news("y", 1) // it was started anew
	beat("y", 1)
	news("y", 3)
	beat("y", 3)
	beat("y", 3)
	lost(3, 3)
	beat("y", 1<<63)
	beat("y", 1<<63)
	lost(maxLost+2, maxLost)
}
