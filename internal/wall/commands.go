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
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/ruleset"
)

// The commands of rule files: on_open runs when a window opens, on_close when it has
// ended for any reason. An on_close is due from the moment its window opens. It is stored
// with its arguments until it has ended: if this daemon does not run it, the next one
// runs it as it was stored.

// commands runs on_open and on_close.
type commands struct {
	door   func(name string) *effective.Door // the door in the rules in force; nil: none
	record func(audit.Event)
	runner *command.Runner

	mu    sync.Mutex
	store Store
	due   map[windowKey]*due // of open windows
}

// due is an on_close that has still to run: an entry of the store.
type due struct {
	Door      string        `json:"door"`
	Source    packet.Source `json:"source"`
	Person    string        `json:"person,omitempty"`
	Port      packet.Port   `json:"port,omitzero"`
	Opened    time.Time     `json:"opened"`
	Arguments []string      `json:"arguments"`
	Timeout   time.Duration `json:"timeout_ns"`

	entry string // in the store
	begun bool   // the on_open of its window ran, or belongs to an earlier daemon
}

// task is the event for which a command runs.
type task struct {
	name  string // on_open or on_close
	event audit.Event
	entry string // to remove from the store when it has ended
}

func newCommands(store Store, door func(string) *effective.Door, record func(audit.Event)) *commands {
	c := &commands{door: door, record: record, store: store, due: map[windowKey]*due{}}
	c.runner = command.NewRunner(c.ended)
	return c
}

// resume runs each stored on_close whose window is not open: it ended while no daemon
// ran. Entries that cannot be decoded were not written here; resume leaves them alone.
func (c *commands) resume(isOpen func(windowKey) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, entry := range c.store.All() {
		d := &due{entry: entry, begun: true}
		if json.Unmarshal([]byte(entry), d) != nil {
			continue
		}
		key := windowKey{d.Door, d.Source}
		if former := c.due[key]; former != nil {
			c.runDue(former, audit.Closed) // of an earlier window
		}
		delete(c.due, key)
		if isOpen(key) {
			c.due[key] = d
		} else {
			c.runDue(d, audit.Expired)
		}
	}
}

// prepare is an observer. Before the event of a new window is recorded, it stores the
// on_close that the window will need: a reader of the event can rely on it.
func (c *commands) prepare(e windowEvent) {
	if e.Kind != audit.Opened && e.Kind != audit.Refreshed {
		return
	}
	d := c.door(e.Door)
	if d == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := windowKey{e.Door, e.Source}
	if former := c.due[key]; former != nil && e.Kind == audit.Opened {
		delete(c.due, key) // the former window was spent, and could not be closed
		c.runDue(former, audit.Closed)
	}
	if d.OnClose != nil && c.due[key] == nil {
		c.remember(d, e.Event)
	}
}

// run is an observer. It runs on_open or on_close after the event is recorded. With an
// on_close, on_open runs once for each window; without one, it runs at each opening and
// refresh.
func (c *commands) run(e windowEvent) {
	if e.Failed {
		return
	}
	d := c.door(e.Door)
	c.mu.Lock()
	defer c.mu.Unlock()
	key := windowKey{e.Door, e.Source}
	due := c.due[key]
	switch {
	case e.Kind == audit.Closed, e.Kind == audit.Expired:
		if due != nil {
			delete(c.due, key)
			c.runDue(due, e.Kind)
		}
	case d == nil || d.OnOpen == nil || d.OnClose != nil && due != nil && due.begun:
	default:
		if due != nil {
			due.begun = true
		}
		c.start(task{name: "on_open", event: e.Event}, d.OnOpen.Expand(values(e.Event)), d.OnOpen.Timeout)
	}
}

// remember stores that an on_close is due.
func (c *commands) remember(d *effective.Door, e audit.Event) {
	next := &due{
		Door: e.Door, Source: e.Source, Person: e.Person, Port: e.Port, Opened: e.Time,
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
	e := audit.Event{Kind: why, Door: d.Door, Source: d.Source, Person: d.Person, Port: d.Port}
	c.start(task{"on_close", e, d.entry}, d.Arguments, d.Timeout)
}

func (c *commands) start(t task, arguments []string, timeout time.Duration) {
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
	text := fmt.Sprintf("exit code %d after %s", r.ExitCode, printable.Time(r.Took.Round(time.Millisecond)))
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
	v := ruleset.Variables{"door": e.Door, "source": e.Source.String(), "port": "", "person": e.Person}
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
		if name == "person" && value == "" { // most ways to knock know no persons
			continue
		}
		env = append(env, "KNOCKWALL_"+strings.ToUpper(name)+"="+value)
	}
	if e.Window != 0 {
		env = append(env, "KNOCKWALL_WINDOW="+strconv.FormatFloat(e.Window.Seconds(), 'f', -1, 64))
	}
	return append(env, "KNOCKWALL_EVENT="+string(e.Kind))
}
