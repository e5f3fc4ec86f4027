package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/method/fixed"
	"github.com/knockwall/knockwall/internal/method/lists"
	"github.com/knockwall/knockwall/internal/method/passwords"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/onetime"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/progress"
	"github.com/knockwall/knockwall/internal/secret"
	"github.com/knockwall/knockwall/internal/sessions"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/nflog"
	"github.com/knockwall/knockwall/nfqueue"
	"github.com/knockwall/knockwall/ruleset"
)

// stillKernel is a kernel that does nothing by itself; a test sends everything.
type stillKernel struct {
	windows []nft.Window // left open by another daemon
	knock   func(prefix []byte, p packet.Packet, data []byte)

	mu      sync.Mutex
	failure error // error of Counts and Windows
	stands  bool
}

func (k *stillKernel) Install(*nft.Table, iter.Seq[nft.Window], string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stands = true
	return nil
}

func (k *stillKernel) Restore(*nft.Table, iter.Seq[nft.Window]) error { return k.Install(nil, nil, "") }

func (k *stillKernel) Remove(string) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stands = false
	return true, nil
}

func (k *stillKernel) Intact(*nft.Table) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stands, nil
}

func (*stillKernel) Others(string) ([]*nft.Standing, error) { return nil, nil }

func (k *stillKernel) Standing(string) (*nft.Standing, error) {
	if k.windows == nil {
		return nil, nil
	}
	return &nft.Standing{}, nil
}

func (*stillKernel) Generation() (uint32, error) { return 1, nil }

func (*stillKernel) IsUnchangedSince(uint32, string) bool { return false }

func (k *stillKernel) Windows(_ *nft.Standing, _ func(), take func(nft.Window)) (bool, error) {
	for _, w := range k.windows {
		take(w)
	}
	return true, nil
}

func (k *stillKernel) OpenWindows(string, []nft.Window) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.stands {
		return errors.New("there is no such table")
	}
	return k.failure
}

func (k *stillKernel) CloseWindow(_, _ string, source packet.Source) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return source != never, k.failure
}

func (k *stillKernel) Describe(string, effective.Host) error { return nil }

func (k *stillKernel) Trapped(*effective.Config, int, packet.Source) (time.Duration, error) {
	return 0, nil
}

func (k *stillKernel) Counts(string) (map[string]nft.Counts, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return map[string]nft.Counts{"ssh": {Admitted: 2, Refused: 5}}, k.failure
}

func (k *stillKernel) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.failure = err
}

func (k *stillKernel) wallStands() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stands
}

// never is a source without a window.
var never = packet.Source{Prefix: netip.MustParsePrefix("192.0.2.99/32")}

// edges returns the edges of a wall on a host on which only the wall listens.
func (k *stillKernel) edges() wall.Edges {
	free := func(uint16) (bool, error) { return false, nil }
	three := func(func(sessions.Session) bool) (int, error) { return 3, nil }
	return wall.Edges{
		Examine: func(*effective.Config) doctor.Report {
			return doctor.Report{Findings: []doctor.Finding{{Check: "still", Severity: doctor.Warning, Problem: "Nothing moves.", Cure: "Wait."}}}
		},
		Look:   func() (effective.Host, error) { return effective.Host{}, nil },
		Used:   wall.NewMemoryStore(),
		Due:    wall.NewMemoryStore(),
		Kernel: k,
		ListenLog: func(_ uint16, h nflog.Handler) (wall.Log, error) {
			k.knock = h.Logged
			return stillSocket{}, nil
		},
		ListenQueue:   func(nfqueue.Config, nfqueue.Handler) (wall.Queue, error) { return stillSocket{}, nil },
		LogInUse:      free,
		QueueInUse:    free,
		SeedConntrack: func(func(sessions.Session) bool, bool) (int, error) { return 3, nil },
		EndSessions:   three,
		EndedSessions: func() ([]sessions.Session, error) { return nil, nil },
	}
}

type stillSocket struct{}

func (stillSocket) Drained() bool                 { return true }
func (stillSocket) Progress() progress.Progress   { return progress.Progress{Idle: true} }
func (stillSocket) Accept(uint32) error           { return nil }
func (stillSocket) Repeat(uint32) error           { return nil }
func (stillSocket) RepeatUpTo(uint32) error       { return nil }
func (stillSocket) Refuse(uint32) error           { return nil }
func (stillSocket) RefuseUpTo(uint32) error       { return nil }
func (stillSocket) Stats() (nfqueue.Stats, error) { return nfqueue.Stats{}, nil }
func (stillSocket) ReadNow()                      {}
func (stillSocket) Close() error                  { return nil }

// rules returns a configuration with one door.
func rules() *ruleset.Config {
	return &ruleset.Config{
		Wall: ruleset.Wall{Table: "knockwall", LogGroup: 7100, Queue: 7100, OnStop: ruleset.Keep, Hold: time.Second, MaxSources: 16, MaxWindows: 1 << 20},
		Doors: []ruleset.Door{{
			Name:  "ssh",
			Ports: []packet.PortRange{{First: 22, Last: 23, Protocol: packet.TCP}},
			Methods: []method.Method{&fixed.Sequence{Sequences: [][]packet.Port{
				{{Number: 17001, Protocol: packet.TCP}, {Number: 18002, Protocol: packet.UDP}},
			}}},
			SequenceTimeout: time.Hour,
			Window:          time.Hour,
			Closed:          ruleset.Drop,
			SourcePrefix:    packet.SourcePrefix{IPv4: 32, IPv6: 64},
		}},
	}
}

// inEveryWay adds two doors to the rules: one opens by a list with two sequences left,
// the other by one-time passwords only.
func inEveryWay(t testing.TB) *ruleset.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(path, []byte("#7001,17002\n17003,17004\n17005,17006\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := rules()
	oneTime, passworded := c.Doors[0], c.Doors[0]
	oneTime.Name, oneTime.Methods = "listed", []method.Method{&lists.List{File: onetime.List{Path: path}}}
	passworded.Name = "passworded"
	passworded.Methods = []method.Method{&passwords.OTP{Port: packet.Port{Number: 17007, Protocol: packet.UDP}, Open: secret.New([]byte("hipjazz"))}}
	c.Doors = append(c.Doors, oneTime, passworded)
	return c
}

// daemon is what Serve serves, with what is behind it.
type daemon struct {
	control.Daemon
	kernel *stillKernel
	// reload implements Reload: it puts the rules in force, unless a test replaces it.
	reload func(confirm time.Duration) (control.Reloaded, error)
	end    func() error // ends Run and waits
	ended  chan struct{}
}

// newDaemon starts a wall on a kernel.
func newDaemon(t testing.TB, k *stillKernel) *daemon {
	t.Helper()
	d := &daemon{kernel: k, ended: make(chan struct{})}
	d.History = audit.NewHistory()
	d.Wall = wall.New(k.edges(), d.History)
	d.reload = func(confirm time.Duration) (control.Reloaded, error) {
		if confirm != 0 {
			return control.Reloaded{Doors: 1}, d.Wall.Try(rules(), confirm)
		}
		return control.Reloaded{Doors: 1}, d.Wall.Apply(rules())
	}
	d.Confirm = func() (control.Confirmed, error) { return control.Confirmed{}, d.Wall.Confirm() }
	d.Reload = func(confirm time.Duration) (control.Reloaded, error) { return d.reload(confirm) }
	if err := d.Wall.Apply(rules()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var err error
	go func() {
		defer close(d.ended)
		err = d.Wall.Run(ctx)
	}()
	d.end = func() error {
		cancel()
		<-d.ended
		return err
	}
	t.Cleanup(func() {
		if err := d.end(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return d
}

// served is a daemon that answers on a control socket.
type served struct {
	*daemon
	path string
	stop func() error // ends Serve and waits
}

func serve(t testing.TB) *served {
	t.Helper()
	return serveAs(t, "")
}

// serveAs serves a daemon whose socket belongs to a systemd unit.
func serveAs(t testing.TB, unit string) *served {
	t.Helper()
	source := packet.Source{Prefix: netip.MustParsePrefix("192.0.2.1/32")}
	return serveWith(t, unit, []nft.Window{{Door: "ssh", Source: source, Left: time.Hour}})
}

// serveWith serves a daemon that finds these windows.
func serveWith(t testing.TB, unit string, windows []nft.Window) *served {
	t.Helper()
	s := &served{daemon: newDaemon(t, &stillKernel{windows: windows})}
	s.kernel.knock([]byte("ssh"), packet.Packet{
		Source: netip.MustParseAddr("192.0.2.2"), SourcePort: 40000, Port: packet.Port{Number: 17001, Protocol: packet.TCP},
	}, nil)

	// Not in t.TempDir, whose path may be too long for a socket.
	folder, err := os.MkdirTemp("", "kw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	s.path = filepath.Join(folder, "control.sock")
	s.SocketUnit = unit
	l, err := control.Listen(s.path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- control.Serve(ctx, l, s.Daemon) }()
	s.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s
}

// dial connects to the control socket.
func (s *served) dial(t testing.TB) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// ask sends a request as curl would, and returns the answer with its body.
func (s *served) ask(t testing.TB, method, path, body string) (*http.Response, string) {
	t.Helper()
	return s.askWith(t, method, path, body, nil)
}

func (s *served) askWith(t testing.TB, method, path, body string, header http.Header) (*http.Response, string) {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.path)
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequest(method, "http://knockwall"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		request.Header = header
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(answer)
}

// wantRefusal checks an error: its status, that it is JSON, and that it contains parts.
func wantRefusal(t testing.TB, response *http.Response, body string, code int, parts ...string) {
	t.Helper()
	if response.StatusCode != code {
		t.Errorf("answered with %s, want %d: %s", response.Status, code, body)
	}
	var problem struct {
		Error string `json:"error"`
	}
	if kind := response.Header.Get("Content-Type"); kind != "application/json" {
		t.Errorf("the answer is %q", kind)
	}
	if err := json.Unmarshal([]byte(body), &problem); err != nil || problem.Error == "" {
		t.Errorf("no error in JSON: %s", body)
	}
	for _, part := range parts {
		if !strings.Contains(problem.Error, part) {
			t.Errorf("%q does not say %q", problem.Error, part)
		}
	}
}

func TestServeAnswersWithTheStatusOfTheWall(t *testing.T) {
	s := serve(t)
	before, err := s.Wall.Status(wall.WindowQuery{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := control.NewClient(s.path).Status(t.Context(), wall.WindowQuery{})
	if err != nil {
		t.Fatal(err)
	}
	response, body := s.ask(t, http.MethodGet, "/v1/status", "")
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "application/json" {
		t.Errorf("answer: %s, %v", response.Status, response.Header)
	}
	var asJSON wall.Status
	if err := json.Unmarshal([]byte(body), &asJSON); err != nil {
		t.Fatalf("%v in\n%s", err, body)
	}
	after, err := s.Wall.Status(wall.WindowQuery{})
	if err != nil {
		t.Fatal(err)
	}

	// Only the time differs between the four.
	all := []*wall.Status{&before, &got, &asJSON, &after}
	for i, status := range all {
		if len(status.Windows) != 1 || len(status.Attempts) != 1 {
			t.Fatalf("status %d: %+v", i, status)
		}
	}
	for i := range all[1:] {
		earlier, later := all[i], all[i+1]
		if earlier.Windows[0].LeftSeconds < later.Windows[0].LeftSeconds ||
			earlier.Attempts[0].AgeSeconds > later.Attempts[0].AgeSeconds ||
			earlier.Attempts[0].LeftSeconds < later.Attempts[0].LeftSeconds {
			t.Errorf("time runs backwards from %+v to %+v", earlier, later)
		}
	}
	for _, status := range all {
		status.Since = status.Since.Round(0).UTC() // JSON has no monotonic clock
		status.Windows[0].LeftSeconds = 0
		status.Attempts[0].AgeSeconds, status.Attempts[0].LeftSeconds = 0, 0
	}
	equal := cmp.Comparer(func(a, b packet.Source) bool { return a == b })
	for _, status := range all[1:] {
		if diff := cmp.Diff(all[0], status, equal); diff != "" {
			t.Errorf("status (-wall +answer):\n%s", diff)
		}
	}
	want := wall.DoorCounters{Knocks: 1, KernelAdmitted: 2, KernelRefused: 5}
	if got.Doors[0].Counters != want || got.Windows[0].Source.String() != "192.0.2.1" || got.Attempts[0].Step != 1 {
		t.Errorf("status: %+v", got)
	}
	for _, secret := range []string{"17001", "18002"} {
		if strings.Contains(body, secret) {
			t.Errorf("the knock %s is in the answer: %s", secret, body)
		}
	}
}

func TestServePassesOnWhatTheWallCannotTell(t *testing.T) {
	s := serve(t)
	s.kernel.fail(errors.New("the table is gone"))
	_, err := control.NewClient(s.path).Status(t.Context(), wall.WindowQuery{})
	if err == nil || err.Error() != "the daemon says: the table is gone" {
		t.Errorf("Status: %v", err)
	}
	response, body := s.ask(t, http.MethodGet, "/v1/status", "")
	if response.StatusCode != http.StatusInternalServerError || response.Header.Get("Content-Type") != "application/json" ||
		body != `{"error":"the table is gone"}`+"\n" {
		t.Errorf("answer: %s %s", response.Status, body)
	}
	s.kernel.fail(nil)
	if _, err := control.NewClient(s.path).Status(t.Context(), wall.WindowQuery{}); err != nil {
		t.Errorf("Status, when the table is back: %v", err)
	}
}

func TestServeEndsAndTheClientSaysSo(t *testing.T) {
	s := serve(t)
	// A connected client that sends nothing does not delay the end.
	idle := s.dial(t)
	if err := s.stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
	_, err := control.NewClient(s.path).Status(t.Context(), wall.WindowQuery{})
	if err == nil || !strings.HasPrefix(err.Error(), "no knockwall listens at "+s.path) {
		t.Errorf("Status: %v", err)
	}
	// The client may also be reset, if it was not accepted yet.
	if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the silent client reads %v", err)
	}
}

func TestServeAnswersManyAtOnce(t *testing.T) {
	s := serve(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			c := control.NewClient(s.path)
			for range 20 {
				if _, err := c.Status(t.Context(), wall.WindowQuery{}); err != nil {
					t.Errorf("Status: %v", err)
				}
			}
		})
	}
	all.Wait()
}
