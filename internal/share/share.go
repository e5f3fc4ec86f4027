package share

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/lease"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

// Options say how to run a companion.
type Options struct {
	Share   *ruleset.Share
	Name    string // of this host in the group
	Control string // path of the daemon's control socket
	// Log gets a message for an administrator, failed or not. It is called for changes, and
	// not again and again.
	Log func(failed bool, text string)
}

// Companion is one member of a group.
type Companion struct {
	Options
	daemon *control.Client
	run    string // of this run; no other run of a member has it
	prefix string // of the group's subjects

	// outgoing wakes the goroutine that tells the daemon.
	outgoing chan struct{}

	mu      sync.Mutex
	member  *lease.Member
	conn    *nats.Conn
	number  uint64 // of the last news
	others  map[string]*other
	faults  map[string]bool // kinds of failures that were logged since a server could last be used
	away    error           // why a server could not be used last
	reached time.Time       // when a server could last be used
	known   bool            // a state of the daemon was known; until then this member neither hears nor tells anything
	missing bool            // news could not be sent; tell all when the servers are back
	traffic traffic
	// namesake is when another companion of this host's name was last heard.
	namesake time.Time
}

// other is another member, as far as it is known.
type other struct {
	run      string
	number   uint64 // of its last news that was seen
	heard    time.Time
	behind   bool // some of its news is missing
	all      bool // with behind: all that it knows is wanted
	asked    time.Time
	answered time.Time
	reported time.Time // when the daemon was last told what the member may not do
	measured
}

// The limits of what other members can make this one do.
const (
	maxOthers = 4096
	// askInterval is how often one member is asked, and its wrong messages are reported.
	askInterval = 250 * time.Millisecond
	reportEvery = 10 * time.Second
	// silence is after how long without a beat a member is forgotten.
	silence = time.Minute
	maxAll  = 2 // members that a joining one asks for all that they know
)

// New returns a companion.
func New(o Options) *Companion {
	return &Companion{
		Options: o, daemon: control.NewClient(o.Control), run: rand.Text(), prefix: "knockwall." + o.Share.Group + ".",
		outgoing: make(chan struct{}, 1), member: lease.NewMember(o.Name, time.Now), others: map[string]*other{},
		faults: map[string]bool{}, reached: time.Now(),
	}
}

// Run shares windows until ctx ends. The error says what an administrator has to correct.
func (c *Companion) Run(ctx context.Context) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	c.mu.Lock()
	c.conn = conn
	c.mu.Unlock()
	if err := c.subscribe(conn); err != nil {
		return err
	}
	var tasks sync.WaitGroup
	defer tasks.Wait()
	tasks.Go(func() { c.follow(ctx) })
	tasks.Go(func() { c.tellDaemon(ctx) })
	tasks.Go(func() { c.beat(ctx) })
	tasks.Go(func() { c.measure(ctx) })
	tasks.Go(func() { c.tellSharing(ctx) })
	<-ctx.Done()
	return nil
}

// follow follows the changes at the daemon. While there is no daemon, it tries again.
func (c *Companion) follow(ctx context.Context) {
	cursor, said := "", false
	for ctx.Err() == nil {
		err := c.daemon.FollowChanges(ctx, cursor, func(change wall.Change) error {
			if err := c.changed(ctx, change); err != nil {
				return err
			}
			said = false
			if change.Cursor != "" {
				cursor = change.Cursor
			}
			return nil
		})
		if ctx.Err() != nil {
			return
		}
		if !said {
			c.Log(true, fmt.Sprintf("the windows of this host are not shared for now: %v", err))
			said = true
		}
		pause(ctx, time.Second)
	}
}

// changed takes a change at the daemon.
func (c *Companion) changed(ctx context.Context, change wall.Change) error {
	if change.Source.IsLinkLocal() {
		return nil // other hosts know another source by that address
	}
	var doors map[string]time.Duration
	windows := int64(0) // that these can have together
	if change.Kind == wall.StateBegins {
		s, err := c.daemon.Status(ctx, wall.WindowQuery{Limit: 1})
		if err != nil {
			return err
		}
		doors = map[string]time.Duration{}
		for _, d := range s.Doors {
			if d.Shared {
				doors[d.Name] = inSeconds(d.WindowSeconds)
			}
		}
		if s.Sharing != nil {
			windows = s.Sharing.MaxWindows
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	k := lease.Key{Door: change.Door, Source: change.Source.String()}
	age := inSeconds(change.AgeSeconds)
	person := lease.Person{Name: change.Person, Key: change.Key, Grant: change.Grant}
	told := change.Origin != ""
	switch change.Kind {
	case wall.StateBegins:
		c.member.StateBegins()
		c.member.SetDoors(doors, int(min(windows, lease.MaxEntries)))
	case wall.ChangeOpen:
		c.publish(c.member.Opened(k, inSeconds(change.LeftSeconds), age, person, told))
	case wall.ChangeClosed:
		c.publish(c.member.Closed(k, age, told, isQuiet(change)))
	case wall.ChangeExpired:
		c.member.Expired(k)
	case wall.ChangeUsed:
		c.publish(c.member.KnockUsed(lease.Used{Method: change.Method, Time: change.Time, Person: person}))
	case wall.StateKnown:
		c.known = true
		c.publish(c.member.StateIsKnown())
		c.ask("", false) // the doors may differ from before
	}
	c.wake()
	return nil
}

func inSeconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// wake makes tellDaemon look what is due.
func (c *Companion) wake() {
	select {
	case c.outgoing <- struct{}{}:
	default:
	}
}

// tellDaemon tells the daemon what other hosts have told. What fails is tried again.
func (c *Companion) tellDaemon(ctx context.Context) {
	var (
		again  <-chan time.Time
		open   []lease.Key // the daemon could not close these
		missed bool        // the daemon did not answer, and it is not known what it has done
	)
	for {
		select {
		case <-ctx.Done():
			return
		case <-again:
			c.mu.Lock()
			for _, k := range open {
				c.member.CompareWindow(k)
			}
			if missed {
				c.member.Compare()
			}
			c.mu.Unlock()
			again, open, missed = nil, nil, false
		case <-c.outgoing:
		}
		for {
			c.mu.Lock()
			due := c.member.Due(control.MaxTold)
			c.mu.Unlock()
			if len(due) == 0 {
				break
			}
			for origin, actions := range byOrigin(due) {
				failed, err := c.tell(ctx, origin, actions)
				open, missed = append(open, failed...), missed || err != nil
			}
		}
		if again == nil && (missed || len(open) > 0) {
			again = time.After(tellAgain)
		}
	}
}

// tellAgain is after how long the daemon is told again what it could not do.
const tellAgain = time.Second

// tell tells the daemon what a host has told. It returns the windows that the daemon could
// not close. Its other answers are final: it does not accept everything, and says why in its
// audit trail.
func (c *Companion) tell(ctx context.Context, origin string, actions []lease.Action) (open []lease.Key, err error) {
	told := make([]control.Told, len(actions))
	for i := range actions {
		told[i] = toldOf(&actions[i])
	}
	errs, err := c.daemon.Tell(ctx, origin, told)
	if err != nil {
		return nil, err
	}
	for i, text := range errs {
		if text != "" && actions[i].Close {
			open = append(open, actions[i].Key)
		}
	}
	return open, nil
}

// byOrigin returns what each host has told of.
func byOrigin(due []lease.Action) map[string][]lease.Action {
	all := map[string][]lease.Action{}
	for _, a := range due {
		all[a.Origin] = append(all[a.Origin], a)
	}
	return all
}

func toldOf(a *lease.Action) control.Told {
	t := control.Told{Kind: wall.ChangeClosed, Door: a.Door, Source: a.Source}
	switch {
	case a.Used != nil:
		return control.Told{Kind: wall.ChangeUsed, Method: a.Used.Method, Time: a.Used.Time, Person: a.Used.Name, Key: a.Used.Key, Grant: a.Used.Grant}
	case !a.Close:
		t.Kind, t.Left = wall.ChangeOpen, a.Left.String()
		t.Person, t.Key, t.Grant = a.Person.Name, a.Person.Key, a.Person.Grant
	}
	return t
}

// publish publishes news, with mu held.
func (c *Companion) publish(n lease.News) {
	for _, piece := range pieces(n) {
		c.number++
		if !c.send("news", message{Number: c.number, News: piece}) {
			c.missing = true
		}
	}
}

// send publishes a message, and reports whether it was sent, or will be.
func (c *Companion) send(what string, m message) bool {
	m.Run = c.run
	data, err := json.Marshal(m)
	// Without a connection nothing is kept for later: when the servers are back, all is told.
	sent := err == nil && c.conn != nil && c.conn.IsConnected() && c.conn.Publish(c.prefix+c.Name+"."+what, data) == nil
	if sent {
		c.traffic.sent++
	}
	return sent
}

// ask asks another member, or all of them, to tell what has happened there, or all that
// they know.
func (c *Companion) ask(of string, all bool) {
	if of != "" {
		of = "." + of
	}
	c.send("ask"+of, message{All: all})
}

// rejoin tells and asks everything, after the servers were away.
func (c *Companion) rejoin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.known {
		return
	}
	c.missing = false
	c.publish(c.member.Own())
	c.ask("", false)
	some := 0
	for _, o := range c.others { // a host that is gone now may have told them something
		o.behind, o.all = true, some < maxAll
		some++
	}
	c.send("beat", message{Number: c.number})
}

// beat tells the others that this member lives, and forgets those of whom nothing is heard.
func (c *Companion) beat(ctx context.Context) {
	for {
		c.mu.Lock()
		if c.known {
			c.send("beat", message{Number: c.number})
		}
		now := time.Now()
		for name, o := range c.others {
			if now.Sub(o.heard) > silence {
				delete(c.others, name)
			}
		}
		interval := beatInterval(len(c.others))
		missing := c.missing && c.conn.IsConnected()
		c.mu.Unlock()
		if missing {
			c.rejoin()
		}
		c.sayWhenAway(now)
		if !pause(ctx, interval) {
			return
		}
	}
}

// beatInterval is how often a member of a group of that size tells that it lives: so that
// each member hears at most 100 beats a second.
func beatInterval(others int) time.Duration {
	return max(250*time.Millisecond, time.Duration(others)*10*time.Millisecond)
}

// heard takes a message of another member.
func (c *Companion) heard(subject string, data []byte) {
	name, what, ok := c.sender(subject)
	if !ok {
		return
	}
	m, err := parse(data)
	c.mu.Lock()
	defer c.mu.Unlock()
	if name == c.Name { // what it publishes itself does not come back
		if err == nil && m.Run != c.run {
			c.namesake = time.Now()
		}
		return
	}
	c.traffic.received++
	if !c.known {
		return // it asks for all when it knows which doors it shares
	}
	o := c.others[name]
	if o == nil {
		if len(c.others) >= maxOthers {
			return
		}
		o = &other{}
		c.others[name] = o
	}
	now := time.Now()
	o.heard = now // or its wrong messages would be reported as those of a new member each
	if err != nil {
		c.report(name, o, lease.Key{}, err)
		return
	}
	if o.run != m.Run {
		o.run, o.number = m.Run, 0
		o.measured.begin(what, m.Number)
		o.all = len(c.others) <= maxAll
		o.behind = o.all || what != "news" || m.Number != 1 // of its first news nothing was missed
	}
	switch what {
	case "news":
		o.behind = o.behind || m.Number > o.number+1
		o.number = max(o.number, m.Number)
		o.seen++
		c.take(name, o, &m.News)
	case "beat":
		c.traffic.lost += o.countLost(m.Number)
		o.behind = o.behind || m.Number > o.number
	case "to." + c.Name:
		c.take(name, o, &m.News)
		if !m.More && (m.All || !o.all) {
			o.behind, o.all, o.number = false, false, max(o.number, m.Number)
		}
	case "ping." + c.Name:
		c.pong(name, o, m.Ping, now)
	case "pong." + c.Name:
		o.answeredPing(&m, now)
	case "ask", "ask." + c.Name:
		c.answer(name, o, m.All)
	}
	if o.behind && now.Sub(o.asked) > askInterval {
		o.asked = now
		c.ask(name, o.all)
	}
}

// take takes news of another member, with mu held.
func (c *Companion) take(name string, o *other, n *lease.News) {
	wrongly, at, err := c.member.Told(name, n)
	if err != nil {
		c.report(name, o, at, err)
	}
	c.publish(wrongly)
	c.wake()
}

// answer tells another member what it has asked for, with mu held.
func (c *Companion) answer(name string, o *other, all bool) {
	now := time.Now()
	if now.Sub(o.answered) < askInterval/2 {
		return // it asks again
	}
	o.answered = now
	n := c.member.Own()
	if all {
		n = c.member.All()
	}
	parts := pieces(n)
	if len(parts) == 0 {
		parts = []lease.News{{}}
	}
	for i, part := range parts {
		c.send("to."+name, message{Number: c.number, News: part, All: all, More: i < len(parts)-1})
	}
}

// sender returns the member that may publish at a subject, and what it publishes.
func (c *Companion) sender(subject string) (name, what string, ok bool) {
	rest, ok := strings.CutPrefix(subject, c.prefix)
	name, what, also := strings.Cut(rest, ".")
	return name, what, ok && also && ruleset.IsMemberName(name)
}

// report lets the daemon record what a member has told that is not accepted, with mu held.
// A member that does so all the time is reported now and then.
func (c *Companion) report(name string, o *other, at lease.Key, err error) {
	now := time.Now()
	if now.Sub(o.reported) < reportEvery {
		return
	}
	o.reported = now
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), reportEvery)
		defer cancel()
		_, _ = c.daemon.Tell(ctx, name, []control.Told{{Kind: wall.ToldWrongly, Door: at.Door, Source: at.Source, Reason: err.Error()}})
	}()
	if !errors.Is(err, lease.ErrNotShared) {
		c.Log(true, fmt.Sprintf("the host %s has told what no member tells: %v", name, err))
	}
}

// pause waits, and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
