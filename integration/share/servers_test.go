package share

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/integration/lab/natslab"
	"github.com/knockwall/knockwall/internal/eventually"
)

// lostServers is how a companion begins to say that it can use no server.
const lostServers = "no NATS server can be used"

// Without any server the local doors work, and it is told once. With one of two, all do.
func TestServersThatAreGone(t *testing.T) {
	f := running(t, 3, 2, `window = "10m"`)
	a := f.members[0]
	stop(f.servers[0].cmd, syscall.SIGKILL)
	source := lab.Source(1, a.v4)
	lab.Must(t, a.OnFirstSYNAfter(source, a.v4, 22, a.knocks(source, a.v4)))
	f.eventuallyEverywhere(source, true)

	stop(f.servers[1].cmd, syscall.SIGKILL)
	for i, m := range f.members {
		source := lab.Source(10+i, m.v4)
		lab.Must(t, m.OnFirstSYNAfter(source, m.v4, 22, m.knocks(source, m.v4)))
	}
	for _, m := range f.members {
		eventually.True(t, m.name+" says that the servers are gone", func() bool { return strings.Contains(m.log.String(), lostServers) })
	}
	// It tries again four times a second.
	time.Sleep(3 * time.Second)
	for _, m := range f.members {
		_, last, _ := cutLast(m.log.String(), "connected to the NATS server")
		if n := strings.Count(last, lostServers); n != 1 {
			t.Errorf("%s has said %d times that the servers are gone:\n%s", m.name, n, last)
		}
	}
	f.serve(0)
	for i := range f.members {
		f.eventuallyEverywhere(lab.Source(10+i, a.v4), true)
	}
}

// cutLast is strings.Cut around the last separator.
func cutLast(s, separator string) (before, after string, found bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}

// A server that takes nothing and answers nothing keeps nobody from a local door. When it goes
// on, all hear of all.
func TestAServerThatHangs(t *testing.T) {
	f := running(t, 3, 1, `window = "10m"`)
	a := f.members[0]
	server := f.servers[0].cmd.Process
	lab.Must(t, server.Signal(syscall.SIGSTOP))
	const sources = 20
	for n := range sources {
		source := lab.Source(1+n, a.v4)
		lab.Must(t, a.OnFirstSYNAfter(source, a.v4, 22, a.knocks(source, a.v4)))
		time.Sleep(250 * time.Millisecond) // all together longer than a companion waits for an answer
	}
	for _, m := range f.members {
		eventually.True(t, m.name+" says that the server does not answer", func() bool { return strings.Contains(m.log.String(), lostServers) })
		eventually.True(t, m.name+" tells it in the status", func() bool {
			s := m.daemon.Status().Sharing
			return s != nil && s.Companion != nil && !s.Companion.Connected
		})
	}
	lab.Must(t, server.Signal(syscall.SIGCONT))
	for n := range sources {
		f.eventuallyEverywhere(lab.Source(1+n, a.v4), true)
	}
}

// A server whose disk is full carries windows as before: it stores nothing of them.
func TestAServerWithAFullDisk(t *testing.T) {
	f := newFleet(t, 3, 1)
	disk := filepath.Join(f.folder, "disk")
	lab.Must(t, os.Mkdir(disk, 0o700))
	lab.Must(t, unix.Mount("tmpfs", disk, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { unix.Unmount(disk, unix.MNT_DETACH) })
	f.servers[0].more = fmt.Sprintf("jetstream { store_dir: %q, max_file: 100MB }\n", disk)
	f.serve(0)
	full, err := os.Create(filepath.Join(disk, "full"))
	lab.Must(t, err)
	defer full.Close()
	for err == nil {
		_, err = full.Write(make([]byte, 4096))
	}
	if !strings.Contains(err.Error(), "no space") {
		t.Fatal(err)
	}
	for _, m := range f.members {
		m.up("")
	}
	for _, m := range f.members {
		m.connected()
	}
	f.agreed(lab.Source(65000, m4(f)))
}

// A server that lies about who has said something opens what that host may open, and nothing
// else. The hosts' own windows and doors are not in its hands.
func TestAServerThatLies(t *testing.T) {
	f := newFleet(t, 2, 1)
	a, b := f.members[0], f.members[1]
	// Whoever may publish everything can do what a server can.
	public, err := natslab.NewKey(filepath.Join(f.folder, "liar"))
	lab.Must(t, err)
	users, err := os.OpenFile(filepath.Join(f.folder, "users"), os.O_APPEND|os.O_WRONLY, 0)
	lab.Must(t, err)
	_, err = fmt.Fprintf(users, "{ nkey: %s, permissions: { publish: \">\", subscribe: \">\" } }\n", public)
	lab.Must(t, errors.Join(err, users.Close()))
	f.serve(0)
	for _, m := range f.members {
		m.up("")
	}
	for _, m := range f.members {
		m.connected()
	}
	f.agreed(lab.Source(65000, m4(f)))
	conn := a.connect(filepath.Join(f.folder, "liar"))
	say := func(as, text string, values ...any) {
		lab.Must(t, conn.Publish("knockwall.prod."+as, fmt.Appendf(nil, `{"run":"liar","number":1000,"windows":[`+text+`]}`, values...)))
	}
	now := time.Now().UnixMilli()
	private, forged := lab.Source(1, a.v4), lab.Source(2, a.v4)
	say("b.news", `{"door":"private","source":%q,"host":"b","stamp":%d,"left":20000}`, private, now)
	say("b.news", `{"door":"ssh","source":"0.0.0.0/0","host":"b","stamp":%d,"left":20000}`, now)
	say("b.to.a", strings.Repeat(" ", 600<<10))
	say("a.news", `{"door":"ssh","source":%q,"host":"a","stamp":%d,"left":86400000}`, private, now) // b believes it, and a does not
	say("b.news", `{"door":"ssh","source":%q,"host":"b","stamp":%d,"left":86400000}`, forged, now)
	for m, opened := range map[*member]struct {
		source netip.Addr
		origin string
	}{a: {forged, "b"}, b: {private, "a"}} {
		eventually.True(t, "what a host may open is open at "+m.name, func() bool { return m.isOpen(opened.source) })
		w, _ := m.window(opened.source)
		if all := m.daemon.Status().Windows; w.Origin != opened.origin || w.LeftSeconds > 30 || len(all) != 1 {
			t.Errorf("%s has %+v", m.name, all)
		}
	}
	a.daemon.WaitFor("refused", "origin=b", "code=not-shared", "failed=true")
	// What is knocked for here is open here.
	own := lab.Source(3, a.v4)
	lab.Must(t, a.OnFirstSYNAfter(own, a.v4, 22, a.knocks(own, a.v4)))
}
