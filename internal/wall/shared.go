package wall

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// Told is a change at another host of which a companion tells.
type Told struct {
	Kind         ChangeKind // ChangeOpen, ChangeClosed, ChangeUsed or ToldWrongly
	Door, Source string     // of windows
	Left         time.Duration
	Person       method.Person
	Method       string    // with ChangeUsed
	Time         time.Time // with ChangeUsed: the time in the knock
	Reason       string    // with ToldWrongly
}

// The errors of Told. A change that is not accepted is in the audit trail, too.
var (
	ErrBadOrigin   = errors.New("invalid origin")
	ErrBadChange   = errors.New("invalid change")
	ErrNotAdmitted = errors.New("not admitted here")
	errNotShared   = &request{ErrNoDoor, "the rule files do not share this door"}
	errLinkLocal   = &request{ErrBadSource, "a link-local address may be a different host there, so it is not shared"}
	errNotAdmitted = &request{ErrNotAdmitted, "the rule files do not admit this person at this door, or no longer"}
	errNotAhead    = &request{ErrBadChange, "the time of the knock is far ahead of this host's clock"}
	errNoKnock     = &request{ErrNotAdmitted, "no door takes such knocks of this key"}
)

// originName matches the name of a host.
var originName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,63}$`)

// Tell applies changes at another host, in their order, and returns an error for each of
// them, or nil. A window opens only at a door that the rule files share, for one source of
// that door, and for no longer than the door's own window. It ends none that is open for
// longer.
func (w *Wall) Tell(origin string, changes []Told) ([]error, error) {
	if !originName.MatchString(origin) {
		return nil, &request{ErrBadOrigin, "an origin is the name of a host: up to 63 letters, digits, dots, hyphens and underscores"}
	}
	if w.packets.current() == nil {
		return nil, errNotInstalled
	}
	errs := make([]error, len(changes))
	opened := map[windowKey]bool{}
	var together []*opening // to be opened in one transaction
	var places []int
	flush := func() {
		w.openTold(together)
		for n, o := range together {
			errs[places[n]] = o.err
		}
		clear(opened)
		together, places = nil, nil
	}
	for i, c := range changes {
		if c.Kind != ChangeOpen || len(together) == maxBatch {
			flush() // the changes keep their order
		}
		if err := c.check(); err != nil {
			errs[i] = err
			w.recordNotShared(origin, c, err)
			continue
		}
		switch c.Kind {
		case ChangeOpen:
			o, err := w.openingOf(origin, c)
			if err != nil {
				errs[i] = err
				w.recordNotShared(origin, c, err)
				continue
			}
			if opened[o.key()] {
				flush()
			}
			opened[o.key()] = true
			together, places = append(together, o), append(places, i)
		case ChangeClosed:
			errs[i] = w.closeTold(origin, c)
		case ChangeUsed:
			errs[i] = w.learn(origin, c)
		case ToldWrongly:
			err := &request{ErrBadChange, c.Reason}
			if c.Door != "" && !w.shares(c.Door) {
				err.kind = ErrNoDoor
			}
			w.recordNotShared(origin, c, err)
		}
	}
	flush()
	return errs, nil
}

func (w *Wall) shares(door string) bool { return w.packets.config().Written.Share.Shares(door) }

// findTold returns the shared door and the source of a window at another host. Other than by
// hand, the source has to be what counts as one source here: an address means no network.
func (w *Wall) findTold(c Told) (*effective.Door, packet.Source, error) {
	d, s, err := w.find(c.Door, c.Source)
	if err != nil {
		return nil, s, err
	}
	told, err := packet.ParseSource(c.Source)
	switch {
	case !w.shares(d.Name):
		return nil, s, errNotShared
	case s.IsLinkLocal():
		return nil, s, errLinkLocal
	case err != nil || told != s:
		return nil, s, &request{ErrBadSource, fmt.Sprintf("the door %s counts %s as one source, and not %s", d.Name, s, c.Source)}
	}
	return d, s, nil
}

// openingOf checks a window at another host.
func (w *Wall) openingOf(origin string, c Told) (*opening, error) {
	d, s, err := w.findTold(c)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	opener := method.Opener{Person: c.Person, Origin: origin}
	if !w.packets.current().admitsStill(d.Name, opener, now) {
		return nil, errNotAdmitted
	}
	reason := reasonShared
	if c.Left > d.Window {
		reason += fmt.Sprintf(", where it is open for %s", c.Left.Round(time.Millisecond))
	}
	length := min(c.Left, d.Window)
	if length < ruleset.MinWindow {
		return nil, errOver(c.Left)
	}
	return &opening{door: d.Name, source: s, length: length, opener: opener, why: audit.Event{
		Time: now, Door: d.Name, Source: s, Person: c.Person.Name, Key: c.Person.Key, Origin: origin,
		Code: audit.CodeShared, Reason: reason}}, nil
}

// errOver says that a window is too short to be opened.
func errOver(left time.Duration) error {
	return &request{ErrBadWindow, fmt.Sprintf("a window with %s left is as good as over", left)}
}

// check checks that the change has a kind, and that no text in it is too long or cannot be
// printed.
func (c *Told) check() error {
	isWord := func(text string, most int) bool {
		return len(text) <= most && strings.IndexFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
	}
	unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
	switch {
	case c.Kind != ChangeOpen && c.Kind != ChangeClosed && c.Kind != ChangeUsed && c.Kind != ToldWrongly:
		return &request{ErrBadChange, "a change is open, closed, used or refused"}
	case !isWord(c.Door, 64), !isWord(c.Source, 64), !isWord(c.Method, 64), !isWord(c.Person.Key, 64), !isWord(c.Person.Grant, 64):
		return &request{ErrBadChange, "a door, a source, a method, a key and a grant are words, and none is too long"}
	case len(c.Person.Name) > 128, strings.IndexFunc(c.Person.Name+c.Reason, unprintable) >= 0, len(c.Reason) > 256:
		return &request{ErrBadChange, "a person and a reason are printable, and not too long"}
	}
	return nil
}

// reasonShared is the reason of what another host has told.
const reasonShared = "another host has told of it"

// openTold opens windows, except those that are open for longer already.
func (w *Wall) openTold(openings []*opening) {
	if len(openings) == 0 {
		return
	}
	w.table.change.Lock()
	defer w.table.change.Unlock()
	if w.table.tornDown {
		for _, o := range openings {
			o.err = ErrStopping
		}
		return
	}
	w.windows.openQueued()
	f := w.packets.current()
	now := time.Now()
	var shorter []*opening
	for _, o := range openings {
		i := f.doorNamed(o.door)
		if i < 0 {
			o.err = errDoorGone
			continue
		}
		// It goes on ending there while others change the table here.
		if o.length -= now.Sub(o.why.Time); o.length < ruleset.MinWindow {
			o.err = errOver(o.length)
			continue
		}
		win, known := w.windows.get(f.ids[i], o.source)
		if !known || win.Spent || win.Until.Before(now.Add(o.length)) {
			shorter = append(shorter, o)
		}
	}
	if len(shorter) > 0 {
		w.windows.openTogether(shorter)
	}
}

func (w *Wall) closeTold(origin string, c Told) error {
	d, s, err := w.findTold(c)
	if err != nil {
		w.recordNotShared(origin, c, err)
		return err
	}
	_, err = w.windows.close(d.Name, s, audit.Event{Code: audit.CodeShared, Reason: reasonShared, Origin: origin})
	if err != nil {
		w.trail.Record(audit.Event{Time: time.Now(), Kind: audit.Closed, Door: d.Name, Source: s, Origin: origin,
			Code: audit.CodeNotClosed, Reason: err.Error(), Failed: true})
	}
	return err
}

// learn remembers a knock at another host. Only knocks of persons who may come in here
// count, so that nobody can fill the memory. None counts whose time is so far ahead that it
// opens nothing here yet: it would keep the person out until then.
func (w *Wall) learn(origin string, c Told) error {
	f := w.packets.current()
	now := time.Now()
	err := error(errNoKnock)
	for i := range f.config.Doors {
		for _, m := range f.config.Doors[i].Methods {
			ordered, ok := m.(method.Ordered)
			switch {
			case !ok || m.Name() != c.Method || !ordered.Admits(c.Person, now):
			case !c.Time.After(now.Add(ordered.MaxSkew())):
				err = nil
			case err != nil:
				err = errNotAhead
			}
		}
	}
	if err != nil {
		w.recordNotShared(origin, c, err)
		return err
	}
	err = w.packets.replays.learn(method.Use{Begins: c.Time, Kind: c.Method, Detail: c.Person.Key, Ordered: true, By: c.Person}, now)
	if err != nil {
		w.trail.Record(audit.Event{Time: now, Kind: audit.Refused, Origin: origin, Person: c.Person.Name, Key: c.Person.Key,
			Code: audit.CodeNotRemembered, Reason: err.Error(), Failed: true})
	}
	return err
}

// recordNotShared records that a change at another host is not accepted. Not every host has
// every door of its group and admits everybody, so that alone is no failure.
func (w *Wall) recordNotShared(origin string, c Told, err error) {
	e := audit.Event{Time: time.Now(), Kind: audit.Refused, Origin: origin,
		Code: audit.CodeNotShared, Reason: err.Error(), Failed: !errors.Is(err, ErrNoDoor) && !errors.Is(err, ErrNotAdmitted)}
	if w.packets.current().doorNamed(c.Door) >= 0 { // else somebody could fill the memory with names
		e.Door = c.Door
	}
	if _, s, err := w.find(c.Door, c.Source); err == nil {
		e.Source = s
	}
	w.trail.Record(e)
}
