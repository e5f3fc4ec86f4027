package wall

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// What is wrong with what is asked for by hand; the errors say more.
var (
	ErrNoDoor    = errors.New("there is no such door")
	ErrNoWindow  = errors.New("no such window is open")
	ErrBadSource = errors.New("this is not a source")
	ErrBadWindow = errors.New("this is not how long a window can be")
)

// request is an error in what was asked for, told in one sentence.
type request struct {
	kind error
	text string
}

func (r *request) Error() string { return r.text }
func (r *request) Unwrap() error { return r.kind }

// Open opens a window by hand, or refreshes it to its full length. The source is
// an address, or a prefix as long as those by which the door tells sources
// apart. The length is from [ruleset.MinWindow] to [ruleset.MaxWindow], or 0 for
// the door's own.
func (w *Wall) Open(door, source string, length time.Duration) (WindowStatus, error) {
	d, s, err := w.find(door, source)
	if err != nil {
		return WindowStatus{}, err
	}
	if length == 0 {
		length = d.Window
	}
	if length < ruleset.MinWindow || length > ruleset.MaxWindow {
		return WindowStatus{}, &request{ErrBadWindow, fmt.Sprintf(
			"a window is open for %s to %.0fh, and not for %s", ruleset.MinWindow, ruleset.MaxWindow.Hours(), length)}
	}
	w.change.Lock()
	defer w.change.Unlock()
	if w.tornDown {
		return WindowStatus{}, ErrStopping
	}
	w.openQueued() // or what was knocked before would refresh it to another length after
	o := &opening{door: door, source: s, length: length,
		why: audit.Event{Time: time.Now(), Door: door, Source: s, Code: audit.CodeManual, Reason: reasonManual}}
	if w.openTogether([]*opening{o}); o.err != nil {
		return WindowStatus{}, o.err
	}
	return WindowStatus{Door: door, Source: s, LeftSeconds: seconds(length)}, nil
}

// reasonManual is the reason of what nobody has knocked for.
const reasonManual = "by hand"

// Closing is what closing a window came to.
type Closing struct {
	Door   string        `json:"door"`
	Source packet.Source `json:"source"`
	Closed bool          `json:"closed"` // there was a window
	Ended  int           `json:"ended"`  // connections that were established
}

// Close closes a window by hand, and ends the connections that the source has
// through the door, too, if endSessions says so; then it is no error that no
// window is open.
func (w *Wall) Close(door, source string, endSessions bool) (Closing, error) {
	_, s, err := w.find(door, source)
	if err != nil {
		return Closing{}, err
	}
	c := Closing{Door: door, Source: s}
	if c.Closed, err = w.closeWindow(door, s, audit.CodeManual, reasonManual); err != nil {
		return c, err
	}
	if endSessions {
		c.Ended, err = w.endSessions(door, s)
		return c, err
	}
	if !c.Closed {
		return c, &request{ErrNoWindow, fmt.Sprintf("the door %s is not open for %s", door, s)}
	}
	return c, nil
}

// closeWindow closes a window, and reports whether it was open.
func (w *Wall) closeWindow(door string, source packet.Source, code audit.Code, why string) (bool, error) {
	w.change.Lock()
	defer w.change.Unlock()
	if w.tornDown {
		return false, ErrStopping
	}
	w.openQueued() // or what was knocked before would be open after
	f := w.current()
	if f == nil {
		return false, errNotInstalled
	}
	i := f.doorNamed(door)
	if i < 0 {
		return false, errDoorGone
	}
	closed, err := w.edges.Kernel.CloseWindow(f.config.Wall.Table, door, source)
	if err != nil {
		return false, err
	}
	w.mu.Lock()
	win := w.windows.Get(f.ids[i], source)
	if win != nil && !win.Spent() {
		w.windows.Close(f.ids[i], source)
	}
	if closed {
		f.tallies[i].Add(audit.Closed)
	}
	w.mu.Unlock()
	w.wakeHousekeeping()
	if closed {
		w.emit(audit.Event{Time: time.Now(), Kind: audit.Closed, Door: door, Source: source, Code: code, Reason: why})
	}
	return closed, nil
}

// find returns the door of that name, and who is meant by source there.
func (w *Wall) find(door, source string) (*effective.Door, packet.Source, error) {
	f := w.current()
	if f == nil {
		return nil, packet.Source{}, errNotInstalled
	}
	i := f.doorNamed(door)
	if i < 0 {
		var names []string
		for _, d := range f.config.Doors {
			names = append(names, strconv.Quote(d.Name))
		}
		if names == nil {
			names = []string{"none at all"}
		}
		return nil, packet.Source{}, &request{ErrNoDoor, fmt.Sprintf("there is no door %q; there is %s", door, strings.Join(names, ", "))}
	}
	d := &f.config.Doors[i]
	addr, prefix, err := parseSource(source)
	s := d.SourcePrefix.Of(addr)
	isWhole := addr.IsUnspecified() && prefix == s.Prefix && !s.IsSingleIP() // from :: nobody comes, from ::/64 many may
	if err != nil && !isWhole {
		return nil, packet.Source{}, err
	}
	if prefix.IsValid() && prefix != s.Prefix {
		return nil, packet.Source{}, &request{ErrBadSource, fmt.Sprintf(
			"the door %s opens for one source, and not for %s: of these addresses that is %s", door, source, s)}
	}
	return d, s, nil
}

// parseSource reads an address, or a prefix, of somebody who may come to a door.
func parseSource(source string) (addr netip.Addr, prefix netip.Prefix, err error) {
	prefix, err = netip.ParsePrefix(source)
	addr = prefix.Addr()
	if err != nil {
		addr, err = netip.ParseAddr(source)
	}
	if s, sourceErr := packet.ParseSource(source); err != nil && sourceErr == nil && s.Link != 0 { // a prefix with a zone
		prefix, addr, err = s.Prefix, s.Addr().WithZone(strconv.FormatUint(uint64(s.Link), 10)), nil
	}
	addr = addr.Unmap()
	text := ""
	switch {
	case err != nil:
		text = fmt.Sprintf("%q is not an IP address", source)
	case addr.Zone() != "" && !isLinkLocal(addr):
		text = fmt.Sprintf("only link-local addresses have a zone: leave %q out of %s", "%"+addr.Zone(), source)
	case isLinkLocal(addr) && (packet.SourcePrefix{IPv4: 32, IPv6: 128}).Of(addr).Link == 0:
		text = fmt.Sprintf("%s is another host on each link: name the interface, as in %s%%eth0", source, addr.WithZone(""))
	case addr.IsUnspecified(), addr.IsMulticast(), addr.IsLoopback(), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		text = fmt.Sprintf("nobody comes to a door from %s", addr)
	default:
		return addr, prefix, nil
	}
	return addr, prefix, &request{ErrBadSource, text}
}

// errNotYet is why nothing can be asked of a wall that was never raised.
var errNotInstalled = errors.New("the wall does not stand yet")

// Windows returns the windows that are open, in the order of doors and sources.
func (w *Wall) Windows() []WindowStatus {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	windows := []WindowStatus{}
	for win := range w.windows.All() {
		if win.Until.After(now) && !win.Spent() {
			windows = append(windows, WindowStatus{w.doors[win.Door], win.Source, seconds(win.Until.Sub(now)), win.Connections})
		}
	}
	slices.SortFunc(windows, compareWindows)
	return windows
}
