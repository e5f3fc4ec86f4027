package wall

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/ruleset"
)

// The kinds of errors in requests to open or close a window. The errors that are returned
// wrap them and say more.
var (
	ErrNoDoor    = errors.New("there is no such door")
	ErrNoWindow  = errors.New("no such window is open")
	ErrBadSource = errors.New("invalid source")
	ErrBadWindow = errors.New("invalid window length")
)

// request is an error in a request, in one sentence.
type request struct {
	kind error
	text string
}

func (r *request) Error() string { return r.text }
func (r *request) Unwrap() error { return r.kind }

// Open opens a window by hand, or refreshes it to its full length. The source is an
// address, or a prefix of the length by which the door tells sources apart. The length is
// from [ruleset.MinWindow] to [ruleset.MaxWindow], or 0 for the window length of the
// door.
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
			"a window is open for %s to %.0fh, not for %s", ruleset.MinWindow, ruleset.MaxWindow.Hours(), printable.Time(length))}
	}
	w.table.change.Lock()
	defer w.table.change.Unlock()
	if w.table.tornDown {
		return WindowStatus{}, ErrStopping
	}
	w.windows.openQueued() // else earlier knocks would later refresh it to another length
	o := &opening{door: door, source: s, length: length,
		why: audit.Event{Time: time.Now(), Door: door, Source: s, Code: audit.CodeManual, Reason: reasonManual}}
	if w.windows.openTogether([]*opening{o}); o.err != nil {
		return WindowStatus{}, o.err
	}
	return WindowStatus{Door: door, Source: s, LeftSeconds: seconds(length)}, nil
}

// reasonManual is the reason of windows opened or closed by hand.
const reasonManual = "by hand"

// Closing is the result of closing a window.
type Closing struct {
	Door   string        `json:"door"`
	Source packet.Source `json:"source"`
	Closed bool          `json:"closed"` // a window was open
	Ended  int           `json:"ended"`  // established connections that were ended
}

// Close closes a window by hand. With endSessions it also ends the connections of the
// source through the door. Then a window that is not open is no error.
func (w *Wall) Close(door, source string, endSessions bool) (Closing, error) {
	_, s, err := w.find(door, source)
	if err != nil {
		return Closing{}, err
	}
	c := Closing{Door: door, Source: s}
	if c.Closed, err = w.windows.close(door, s, audit.Event{Code: audit.CodeManual, Reason: reasonManual}); err != nil {
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

// endSessions ends the sessions of a source through a door, and forgets its spent window,
// so that none of its packets is recognized as a retransmission. It returns the number of
// ended sessions.
func (w *Wall) endSessions(door string, source packet.Source) (ended int, err error) {
	w.table.change.Lock()
	defer w.table.change.Unlock()
	f := w.packets.current()
	i := f.doorNamed(door)
	if i < 0 {
		return 0, errDoorGone
	}
	w.windows.forgetSpent(f.ids[i], source)
	return w.sessions.end(f, door, source)
}

// find returns the door of that name, and the source at that door which a string means.
func (w *Wall) find(door, source string) (*effective.Door, packet.Source, error) {
	f := w.packets.current()
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
			names = []string{"no door at all"}
		}
		return nil, packet.Source{}, &request{ErrNoDoor, fmt.Sprintf("there is no door %q; there is %s", door, strings.Join(names, ", "))}
	}
	d := &f.config.Doors[i]
	addr, prefix, err := parseSource(source)
	s := d.SourcePrefix.Of(addr)
	isWhole := addr.IsUnspecified() && prefix == s.Prefix && !s.IsSingleIP() // no source has the address ::, but ::/64 contains sources
	if err != nil && !isWhole {
		return nil, packet.Source{}, err
	}
	if prefix.IsValid() && prefix != s.Prefix {
		return nil, packet.Source{}, &request{ErrBadSource, fmt.Sprintf(
			"the door %s opens for one source, not for %s: the source of these addresses is %s", door, source, s)}
	}
	return d, s, nil
}

// parseSource parses the address or prefix of a possible source. The prefix is invalid
// for an address.
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
		text = fmt.Sprintf("%s may be a different host on each link: name the interface, as in %s%%eth0", source, addr.WithZone(""))
	case addr.IsUnspecified(), addr.IsMulticast(), addr.IsLoopback(), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		text = fmt.Sprintf("%s cannot be a source", addr)
	default:
		return addr, prefix, nil
	}
	return addr, prefix, &request{ErrBadSource, text}
}

// errNotInstalled is returned before the first Apply.
var errNotInstalled = errors.New("the wall is not installed yet")
