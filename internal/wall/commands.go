package wall

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/command"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// The commands of rule files: on_open runs when a window opens, on_close when it has
// ended for any reason. An on_close is due from the moment its window opens. It is stored
// with its arguments until it has ended: if this daemon does not run it, the next one
// runs it as it was stored.

// commands runs on_open and on_close.
type commands struct {
	record func(audit.Event)
	runner *command.Runner

	mu    sync.Mutex
	store Store
	due   map[windowKey]*due // of open windows
}

type windowKey struct {
	door   string
	source packet.Source
}

// due is an on_close that has still to run: an entry of the store.
type due struct {
	Door      string        `json:"door"`
	Source    packet.Source `json:"source"`
	Port      packet.Port   `json:"port,omitzero"`
	Opened    time.Time     `json:"opened"`
	Arguments []string      `json:"arguments"`
	Timeout   time.Duration `json:"timeout_ns"`

	entry string
}

// task is the event for which a command runs.
type task struct {
	name  string // on_open or on_close
	event audit.Event
	entry string // to remove from the store when it has ended
}

func newCommands(store Store, record func(audit.Event)) *commands {
	c := &commands{record: record, store: store, due: map[windowKey]*due{}}
	c.runner = command.NewRunner(c.ended)
	return c
}

// resume runs each stored on_close whose window is not open: it ended while no daemon
// ran. Entries that cannot be decoded were not written here; resume leaves them alone.
func (c *commands) resume(open map[windowKey]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, entry := range c.store.All() {
		d := &due{entry: entry}
		if json.Unmarshal([]byte(entry), d) != nil {
			continue
		}
		key := windowKey{d.Door, d.Source}
		if former := c.due[key]; former != nil {
			c.runDue(former, audit.Closed) // of an earlier window
		}
		delete(c.due, key)
		if open[key] {
			c.due[key] = d
		} else {
			c.runDue(d, audit.Expired)
		}
	}
}

// opened records that a window has opened or was refreshed, and runs the commands for it.
// With an on_close, on_open runs once for each window; without one, it runs at each opening
// and refresh. Whoever reads the event can rely on the on_close: it is stored before.
func (c *commands) opened(d *effective.Door, e audit.Event) {
	if d.OnOpen == nil && d.OnClose == nil {
		c.record(e)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := windowKey{e.Door, e.Source}
	if former := c.due[key]; former != nil && e.Kind == audit.Opened {
		delete(c.due, key) // the event of the end of its window is about to follow
		c.runDue(former, audit.Closed)
	}
	begins := d.OnClose == nil || c.due[key] == nil
	if d.OnClose != nil && begins {
		c.remember(d, e)
	}
	c.record(e)
	if d.OnOpen != nil && begins {
		c.run(task{name: "on_open", event: e}, d.OnOpen.Expand(values(e)), d.OnOpen.Timeout)
	}
}

// remember stores that an on_close is due.
func (c *commands) remember(d *effective.Door, e audit.Event) {
	next := &due{
		Door: e.Door, Source: e.Source, Port: e.Port, Opened: e.Time,
		Arguments: d.OnClose.Expand(values(e)), Timeout: d.OnClose.Timeout,
	}
	text, err := json.Marshal(next)
	if err == nil {
		next.entry = string(text)
		err = c.store.Add(next.entry)
	}
	if err != nil {
		c.record(audit.Event{Time: e.Time, Kind: audit.Command, Door: e.Door, Source: e.Source, Failed: true,
			Code: audit.CodeNotRemembered, Reason: "on_close would be forgotten if the daemon were killed: " + err.Error()})
	}
	c.due[windowKey{e.Door, e.Source}] = next
}

// closed runs the on_close of a window that has ended.
func (c *commands) closed(e audit.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := windowKey{e.Door, e.Source}
	if d := c.due[key]; d != nil {
		delete(c.due, key)
		c.runDue(d, e.Kind)
	}
}

// closedAll runs all on_close commands that are due, because the wall was removed with
// its windows.
func (c *commands) closedAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, d := range c.due {
		delete(c.due, key)
		c.runDue(d, audit.Closed)
	}
}

// commandsTimeout is how long a stopping daemon waits for commands.
const commandsTimeout = 10 * time.Second

// close ends all commands. The next daemon runs what is still due.
func (c *commands) close() { c.runner.Close(commandsTimeout) }

func (c *commands) runDue(d *due, why audit.Kind) {
	e := audit.Event{Kind: why, Door: d.Door, Source: d.Source, Port: d.Port}
	c.run(task{"on_close", e, d.entry}, d.Arguments, d.Timeout)
}

func (c *commands) run(t task, arguments []string, timeout time.Duration) {
	job := command.Job{
		Key:       t.event.Door + " " + t.event.Source.String(),
		Arguments: arguments, Environment: environment(t.event), Timeout: timeout,
		Vital: t.entry != "", For: t,
	}
	if !c.runner.Run(job) && t.entry == "" {
		t.emit(c.record, audit.CodeNotRun, "not run: too many commands are waiting, or knockwall is stopping")
	}
}

// ended records the result of a command.
func (c *commands) ended(r command.Result) {
	t := r.Job.For.(task)
	cut := errors.Is(r.Err, command.ErrClosed)
	if t.entry != "" && !cut {
		if err := c.store.Remove(t.entry); err != nil {
			t.emit(c.record, audit.CodeMayRunAgain, "would be run again by the next daemon: "+err.Error())
		}
	}
	text := fmt.Sprintf("exit code %d after %s", r.ExitCode, r.Took.Round(time.Millisecond))
	code := audit.CodeSucceeded
	switch {
	case cut:
		code = audit.CodeInterrupted
	case r.Err != nil:
		code = audit.CodeNoExitCode
	case r.ExitCode != 0:
		code = audit.CodeExitCode
	}
	if r.Err != nil {
		text = r.Err.Error()
	}
	if cut && t.entry != "" {
		text += "; it is run again when knockwall starts"
	}
	if r.Output != "" {
		text += ": " + r.Output
	}
	t.emit(c.record, code, text)
}

func (t task) emit(record func(audit.Event), code audit.Code, text string) {
	record(audit.Event{
		Time: time.Now(), Kind: audit.Command, Door: t.event.Door, Source: t.event.Source,
		Code: code, Reason: t.name + ": " + text, Failed: code != audit.CodeSucceeded,
	})
}

// values returns the variables for the arguments of a command.
func values(e audit.Event) ruleset.Variables {
	v := ruleset.Variables{"door": e.Door, "source": e.Source.String(), "port": ""}
	if e.Port.Number != 0 { // it is 0 when the window is opened by hand
		v["port"] = e.Port.String()
	}
	return v
}

// environment returns the environment variables of a command: the values, the length of
// the window, and the kind of the event.
func environment(e audit.Event) []string {
	var env []string
	for name, value := range values(e) {
		env = append(env, "KNOCKWALL_"+strings.ToUpper(name)+"="+value)
	}
	if e.Window != 0 {
		env = append(env, "KNOCKWALL_WINDOW="+strconv.FormatFloat(e.Window.Seconds(), 'f', -1, 64))
	}
	return append(env, "KNOCKWALL_EVENT="+string(e.Kind))
}

// emit records an event of a door, and runs the commands for it. It is called without mu.
func (w *Wall) emit(e audit.Event) {
	if e.Kind == audit.Opened || e.Kind == audit.Refreshed {
		f := w.current()
		if i := f.doorNamed(e.Door); i >= 0 {
			w.commands.opened(&f.config.Doors[i], e)
			return
		}
	}
	w.trail.Record(e)
	switch {
	case e.Kind == audit.Expired:
		w.runExpired(e)
	case e.Kind == audit.Closed && !e.Failed:
		w.commands.closed(e)
	}
}

// runExpired runs the on_close of an expired window, unless the same source has a new
// window.
func (w *Wall) runExpired(e audit.Event) {
	w.mu.Lock()
	win := w.windows.Get(w.doorID(e.Door), e.Source)
	w.mu.Unlock()
	if win == nil {
		w.commands.closed(e)
	}
}
