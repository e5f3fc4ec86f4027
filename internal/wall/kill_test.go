package wall_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/sessions"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/nflog"
	"github.com/knockwall/knockwall/nfqueue"
	"github.com/knockwall/knockwall/ruleset"
)

// process is a daemon that can be killed. From then on its calls to the kernel do
// nothing, and its sockets are gone with everything in them.
type process struct {
	k *kernel

	mu     sync.Mutex
	calls  int            // calls to the kernel so far
	last   int            // the call that is not executed any more; 0: none
	step   func()         // called before each call except verdicts
	killed chan struct{}  // closed when it is killed
	unbind map[any]func() // by socket
}

var errKilled = errors.New("the daemon was killed")

func newProcess(k *kernel) *process {
	return &process{k: k, step: func() {}, killed: make(chan struct{}), unbind: map[any]func(){}}
}

func (p *process) dead() bool {
	select {
	case <-p.killed:
		return true
	default:
		return false
	}
}

// asks reports whether the daemon is alive for a call to the kernel. It cannot be killed
// until p.mu, which is held, is unlocked.
func (p *process) asks() bool {
	p.mu.Lock()
	if p.dead() {
		p.mu.Unlock()
		return false
	}
	p.calls++
	if p.calls == p.last {
		p.kill()
		p.mu.Unlock()
		return false
	}
	return true
}

// kill is called with p.mu held.
func (p *process) kill() {
	p.k.mu.Lock()
	defer p.k.mu.Unlock()
	defer close(p.killed)
	for _, unbind := range p.unbind {
		unbind()
	}
	for _, t := range p.k.tables {
		t.own = false
	}
	if p.k.ownership {
		for name, t := range p.k.tables {
			if t.trial {
				p.k.unhook()
				delete(p.k.tables, name)
			}
		}
	}
}

// steps is asks for a call that is a step of an operation.
func (p *process) steps() bool {
	if p.dead() {
		return false
	}
	p.step()
	return p.asks()
}

// die closes a socket without waiting for its handler, because the process is dead. It is
// called with mu of the kernel held.
func (s *socket) die() bool {
	select {
	case <-s.closed:
		return false
	default:
	}
	close(s.closed)
	s.inbox = nil
	return true
}

func (p *process) edges() wall.Edges {
	e := p.k.edges()
	in := func(ask func(uint16) (bool, error)) func(uint16) (bool, error) {
		return func(n uint16) (bool, error) {
			if !p.steps() {
				return false, errKilled
			}
			defer p.mu.Unlock()
			return ask(n)
		}
	}
	about := func(do func(sessionsOf) (int, error)) func(sessionsOf) (int, error) {
		return func(wanted sessionsOf) (int, error) {
			if !p.steps() {
				return 0, errKilled
			}
			defer p.mu.Unlock()
			return do(wanted)
		}
	}
	mortal := wall.Edges{
		Look:       e.Look,
		Used:       e.Used,
		Due:        e.Due,
		Kernel:     mortalKernel{p},
		LogInUse:   in(e.LogInUse),
		QueueInUse: in(e.QueueInUse),
		SeedConntrack: func(wanted sessionsOf, renew bool) (int, error) {
			return about(func(wanted sessionsOf) (int, error) { return e.SeedConntrack(wanted, renew) })(wanted)
		},
		// This call belongs to a packet, not to one of the operations.
		Tracked: func(of packet.Packet) (bool, error) {
			if !p.asks() {
				return false, errKilled
			}
			defer p.mu.Unlock()
			return e.Tracked(of)
		},
		EndSessions: about(e.EndSessions),
		EndedSessions: func() ([]sessions.Session, error) {
			if !p.steps() {
				return nil, errKilled
			}
			defer p.mu.Unlock()
			return e.EndedSessions()
		},
		ClearMarks: func(wanted sessionsOf) error {
			_, err := about(func(wanted sessionsOf) (int, error) { return 0, e.ClearMarks(wanted) })(wanted)
			return err
		},
		ListenLog: func(group uint16, h nflog.Handler) (wall.Log, error) {
			if !p.steps() {
				return nil, errKilled
			}
			defer p.mu.Unlock()
			l, err := p.k.listenLog(group, h)
			if err != nil {
				return nil, err
			}
			log := l.(*fakeLog)
			p.unbind[log] = func() {
				if log.die() {
					delete(p.k.logs, group)
				}
			}
			return mortalLog{log, p}, nil
		},
		ListenQueue: func(c nfqueue.Config, h nfqueue.Handler) (wall.Queue, error) {
			if !p.steps() {
				return nil, errKilled
			}
			defer p.mu.Unlock()
			q, err := p.k.listenQueue(c, h)
			if err != nil {
				return nil, err
			}
			queue := q.(*fakeQueue)
			p.unbind[queue] = func() {
				if queue.die() {
					delete(p.k.queues, c.Number)
					queue.drop()
				}
			}
			return mortalQueue{queue, p}, nil
		},
	}
	if e.Watch != nil {
		mortal.Watch = func(changed func(nft.Change), failed func(error)) (io.Closer, error) {
			if !p.steps() {
				return nil, errKilled
			}
			defer p.mu.Unlock()
			w, err := e.Watch(changed, failed)
			if err != nil {
				return nil, err
			}
			p.unbind[w] = func() {
				p.k.watchers = slices.DeleteFunc(p.k.watchers, func(other *watcher) bool { return w == other })
			}
			return w, nil
		}
	}
	return mortal
}

type mortalKernel struct{ p *process }

func (m mortalKernel) Install(t *nft.Table, windows iter.Seq[nft.Window], replaced string) error {
	if !m.p.steps() {
		return errKilled
	}
	defer m.p.mu.Unlock()
	return m.p.k.Install(t, windows, replaced)
}

func (m mortalKernel) Restore(t *nft.Table, windows iter.Seq[nft.Window]) error {
	if !m.p.steps() {
		return errKilled
	}
	defer m.p.mu.Unlock()
	return m.p.k.Restore(t, windows)
}

func (m mortalKernel) Remove(table string) (bool, error) {
	if !m.p.steps() {
		return false, errKilled
	}
	defer m.p.mu.Unlock()
	return m.p.k.Remove(table)
}

func (m mortalKernel) Intact(t *nft.Table) (bool, error) {
	if !m.p.steps() {
		return false, errKilled
	}
	defer m.p.mu.Unlock()
	return m.p.k.Intact(t)
}

func (m mortalKernel) Standing(table string) (*nft.Standing, error) {
	if !m.p.steps() {
		return nil, errKilled
	}
	defer m.p.mu.Unlock()
	return m.p.k.Standing(table)
}

func (m mortalKernel) Generation() (uint32, error) { return m.p.k.Generation() }

func (m mortalKernel) IsUnchangedSince(generation uint32, table string) bool {
	return m.p.k.IsUnchangedSince(generation, table)
}

func (m mortalKernel) Windows(s *nft.Standing, begin func(), take func(nft.Window)) (bool, error) {
	if !m.p.steps() {
		return false, errKilled
	}
	defer m.p.mu.Unlock()
	return m.p.k.Windows(s, begin, take)
}

func (m mortalKernel) Others(table string) ([]*nft.Standing, error) {
	if !m.p.steps() {
		return nil, errKilled
	}
	defer m.p.mu.Unlock()
	return m.p.k.Others(table)
}

func (m mortalKernel) OpenWindows(table string, windows []nft.Window) error {
	if !m.p.steps() {
		return errKilled
	}
	defer m.p.mu.Unlock()
	return m.p.k.OpenWindows(table, windows)
}

func (m mortalKernel) CloseWindow(table, door string, source packet.Source) (bool, error) {
	if !m.p.steps() {
		return false, errKilled
	}
	defer m.p.mu.Unlock()
	return m.p.k.CloseWindow(table, door, source)
}

func (m mortalKernel) Describe(table string, host effective.Host) error {
	if !m.p.steps() {
		return errKilled
	}
	defer m.p.mu.Unlock()
	return m.p.k.Describe(table, host)
}

func (m mortalKernel) Trapped(c *effective.Config, door int, source packet.Source) (time.Duration, error) {
	return m.p.k.Trapped(c, door, source)
}

func (m mortalKernel) Counts(table string) (map[string]nft.Counts, error) {
	if !m.p.steps() {
		return nil, errKilled
	}
	defer m.p.mu.Unlock()
	return m.p.k.Counts(table)
}

type mortalLog struct {
	*fakeLog
	p *process
}

func (l mortalLog) Drained() bool { return l.p.dead() || l.fakeLog.Drained() }
func (l mortalLog) Close() error {
	if !l.p.steps() {
		return errKilled
	}
	l.p.mu.Unlock() // as it waits for the handler
	return l.fakeLog.Close()
}

type mortalQueue struct {
	*fakeQueue
	p *process
}

func (q mortalQueue) verdict(give func(uint32) error, id uint32) error {
	if !q.p.asks() {
		return errKilled
	}
	defer q.p.mu.Unlock()
	return give(id)
}

func (q mortalQueue) Accept(id uint32) error     { return q.verdict(q.fakeQueue.Accept, id) }
func (q mortalQueue) Repeat(id uint32) error     { return q.verdict(q.fakeQueue.Repeat, id) }
func (q mortalQueue) Refuse(id uint32) error     { return q.verdict(q.fakeQueue.Refuse, id) }
func (q mortalQueue) RepeatUpTo(id uint32) error { return q.verdict(q.fakeQueue.RepeatUpTo, id) }
func (q mortalQueue) RefuseUpTo(id uint32) error { return q.verdict(q.fakeQueue.RefuseUpTo, id) }
func (q mortalQueue) Close() error {
	if !q.p.steps() {
		return errKilled
	}
	q.p.mu.Unlock() // as it waits for the handler
	return q.fakeQueue.Close()
}

// life is a host whose daemon is killed during an operation.
type life struct {
	*host
	process *process
	until   time.Time // end of alice's window, if she has one
	sent    []attempt
}

// attempt is a connection that was tried during the operation.
type attempt struct {
	*journey
	who    string
	walled bool // a wall was installed then
}

// born returns a host with a daemon that can be killed.
func born(t *testing.T, ownership bool) *life {
	k := newKernel(t)
	k.ownership = ownership
	p := newProcess(k)
	h := &host{kernel: k, trail: &trail{}, ended: make(chan error, 1)}
	h.wall = wall.New(p.edges(), h.trail)
	return &life{host: h, process: p}
}

// lived returns a host with a running wall and a window for alice.
func lived(t *testing.T, c *ruleset.Config) *life {
	l := born(t, false)
	l.reload(c)
	ctx, cancel := context.WithCancel(t.Context())
	l.stop = cancel
	go func() { l.ended <- l.wall.Run(ctx) }()
	l.client(alice).knock(7000, 8000, 9000)
	synctest.Wait()
	l.until = time.Now().Add(window)
	time.Sleep(window / 2)
	l.client(bob).knock(7000, 8000)
	l.client(bob).dial(22) // it is held
	synctest.Wait()
	return l
}

// tryAll makes alice and carol try to connect.
func (l *life) tryAll() {
	walled := len(l.stands()) > 0
	for who, c := range map[string]*client{"alice": l.client(alice), "carol": l.client(carol)} {
		c.connections = 100 * len(l.sent)
		l.sent = append(l.sent, attempt{c.dial(22), who, walled})
	}
}

// The daemon is killed before each of the calls of an operation. The next daemon takes
// over each time.
func TestADaemonThatIsKilledAtAnyMomentIsTakenOverFrom(t *testing.T) {
	rules := func() *ruleset.Config { return config(sshDoor()) }
	others := func() *ruleset.Config { return config(door("web", 443, 7001), limited(sshDoor(), 1000)) }
	removing := func() *ruleset.Config {
		c := rules()
		c.Wall.OnStop = ruleset.Remove
		return c
	}
	reload := func(next *ruleset.Config) func(l *life) error {
		return func(l *life) error { return l.raise(next) }
	}
	stop := func(l *life) error {
		l.stop()
		return <-l.ended
	}
	for _, tt := range []struct {
		name    string
		prepare func(t *testing.T) *life
		do      func(l *life) error
		then    *ruleset.Config // the rules of the next daemon
		goes    bool            // the wall may be gone
	}{
		{"first start", func(t *testing.T) *life { return born(t, false) }, reload(rules()), rules(), true},
		{"start over a wall that stands", func(t *testing.T) *life {
			l := born(t, false)
			l.found(rules(), 0, nft.Window{Door: "ssh", Source: single(alice), Left: window})
			l.until = time.Now().Add(window)
			return l
		}, reload(others()), others(), false},
		{"reload", func(t *testing.T) *life { return lived(t, rules()) }, reload(others()), others(), false},
		{"reload with other numbers", func(t *testing.T) *life { return lived(t, rules()) }, func(l *life) error {
			err := l.raise(moved(others()))
			time.Sleep(time.Second) // the former sockets are closed meanwhile
			return err
		}, moved(others()), false},
		{"reload, and start with the former numbers", func(t *testing.T) *life { return lived(t, rules()) },
			reload(moved(others())), rules(), false},
		{"stop", func(t *testing.T) *life { return lived(t, rules()) }, stop, others(), false},
		{"stop, and start with other numbers", func(t *testing.T) *life { return lived(t, rules()) }, stop, moved(rules()), false},
		{"stop, and the wall is to go", func(t *testing.T) *life { return lived(t, removing()) }, stop, removing(), true},
		{"down", func(t *testing.T) *life { return lived(t, rules()) }, func(l *life) error {
			_, err := l.wall.Down(context.Background())
			return err
		}, rules(), true},
		{"trial, and confirmed", func(t *testing.T) *life { return born(t, true) }, func(l *life) error {
			return errors.Join(l.try(rules(), time.Minute), l.wall.Confirm())
		}, rules(), true},
		{"trial of other rules", func(t *testing.T) *life { return lived(t, rules()) }, func(l *life) error {
			err := l.try(moved(others()), time.Second)
			time.Sleep(2 * time.Second)
			return err
		}, rules(), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			finished := false
			n := 0
			for !finished && !t.Failed() {
				n++
				t.Run(fmt.Sprintf("call %d", n), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						l := tt.prepare(t)
						finished = l.killedAt(n, tt.do)
						l.takenOver(tt.then, tt.goes)
					})
				})
			}
			if n < 5 {
				t.Errorf("%d calls are few", n)
			}
		})
	}
}

// killedAt runs an operation in which the daemon is killed before its n-th call. If there
// are fewer calls, the daemon is killed afterwards, and killedAt reports true.
func (l *life) killedAt(n int, do func(l *life) error) (finished bool) {
	l.process.mu.Lock()
	l.process.last = l.process.calls + n
	l.process.step = l.tryAll
	l.process.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := do(l); err != nil && !l.process.dead() {
			l.t.Errorf("it fails before the daemon is killed: %v", err)
		}
	}()
	l.t.Cleanup(func() { // when the dead daemon has ended
		if l.stop != nil {
			l.stop()
		}
		<-done
	})
	select {
	case <-l.process.killed:
		return false
	case <-done:
		l.process.mu.Lock()
		defer l.process.mu.Unlock()
		if l.process.dead() {
			return false // and the operation was not completed
		}
		l.process.kill()
		return true
	}
}

// takenOver starts another daemon, and checks that no window or packet is lost or gained.
func (l *life) takenOver(c *ruleset.Config, goes bool) {
	stood := len(l.stands()) > 0
	if !stood && !goes {
		l.t.Fatal("no wall stands")
	}
	if l.ownership && l.onTrial() {
		l.t.Error("a trial outlives its daemon")
	}
	a, b, s := l.client(alice), l.client(bob), l.client(carol)
	a.connections, b.connections, s.connections = 10_000, 10_000, 10_000
	open := stood && time.Now().Before(l.until)
	if stood {
		l.expect("without a daemon: a stranger", s.dial(22), dropped)
	}
	if open {
		l.expect("without a daemon: alice has a window", a.dial(22), accepted)
	}

	h := &host{kernel: l.kernel, trail: &trail{}, ended: make(chan error, 1)}
	h.wall = wall.New(h.kernel.edges(), h.trail)
	if err := h.raise(c); err != nil {
		l.t.Fatalf("the next daemon does not start: %v", err)
	}
	h.run()
	n := h.named()
	want := []string{fmt.Sprint("group ", n.LogGroup), fmt.Sprint("queue ", n.Admitted), fmt.Sprint("queue ", n.Strangers), fmt.Sprint("queue ", n.Excess)}
	h.expectBound(want)
	if got := h.stands(); !slices.Equal(got, []string{"knockwall"}) {
		l.t.Errorf("stands: %v", got)
	}
	if got := h.left("ssh", bob) + h.left("ssh", carol); got != 0 {
		l.t.Errorf("windows are open of which nobody knows")
	}
	if open {
		if got, want := h.left("ssh", alice), time.Until(l.until); got != want {
			l.t.Errorf("alice's window is open for %s, want %s", got, want)
		}
		if got := h.status().Windows; len(got) != 1 || got[0].Source != single(alice) || got[0].LeftSeconds != time.Until(l.until).Round(time.Millisecond).Seconds() {
			l.t.Errorf("windows: %+v, want alice's for %s", got, time.Until(l.until))
		}
		h.expect("alice has a window", a.dial(22), accepted)
	} else if got := h.left("ssh", alice); got != 0 {
		l.t.Errorf("alice has a window for %s", got)
	}
	refusedThen := s.dial(22)
	h.expect("a stranger", refusedThen, waiting)
	time.Sleep(hold)
	h.expect("a stranger", refusedThen, refused)
	b.knock(9000) // the attempt was lost with its daemon
	h.expect("bob's knocks were forgotten", b.dial(22), waiting)
	time.Sleep(time.Second)
	b.knock(7000, 8000, 9000)
	h.expect("bob has knocked", b.dial(22), accepted)
	if open {
		time.Sleep(time.Until(l.until) - 1)
		h.expect("alice's window is open yet", a.dial(22), accepted)
		time.Sleep(time.Nanosecond)
		h.expect("alice's window is over", a.dial(22), waiting)
	}
	for _, j := range l.sent {
		fate := h.fate(j.journey)
		if j.walled && j.who == "carol" && fate == accepted {
			l.t.Errorf("carol, who has no window, came in")
		}
		if j.walled && j.who == "alice" && fate == refused && !l.until.IsZero() {
			l.t.Errorf("alice, who has a window, was refused")
		}
	}
}
