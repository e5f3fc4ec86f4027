package wall

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/onetime"
	"github.com/knockwall/knockwall/internal/otp"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// What opens a door once is remembered before it opens, so that it cannot be used
// again whatever becomes of the daemon.

// Ledger is a set of lines that lasts; [ledger.Ledger] is one.
type Ledger interface {
	Add(entry string) error
	Remove(entry string) error
	Has(entry string) bool
	All() []string
	Len() int
	// Damaged returns when it was last found that entries may be missing. It is zero if
	// it never was.
	Damaged() time.Time
}

// once remembers what was used. An entry begins with the Unix time, in seconds, of
// the minute or step that it belongs to.
type once struct {
	mu     sync.Mutex
	ledger Ledger
}

// The bounds of what is remembered. What is long over is kept while there is room,
// as it would be good again if the clock were put back.
const (
	keptUsed  = 4096
	mostUsed  = 65536
	worthless = 3 * time.Hour // more than any step or minute can be good for
)

var errTooManyUsed = errors.New("more one-time passwords and steps are in use at once than can be remembered")

// use is something that opens a door once.
type use struct {
	begins time.Time     // of the minute or step that it belongs to
	early  time.Duration // how long before that it may be used
	what   string
}

// take takes note that something is used, and reports whether it was before.
func (o *once) take(u use, now time.Time) (replay bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	entry := fmt.Sprintf("%d %s", u.begins.Unix(), u.what)
	if o.ledger.Has(entry) {
		return true, nil
	}
	// What cannot have been used before the damage is good.
	if damaged := o.ledger.Damaged(); !damaged.IsZero() && !u.begins.Add(-u.early).After(damaged) {
		return false, errMayBeUsed
	}
	if o.ledger.Len() >= keptUsed {
		if err := o.forget(now); err != nil {
			return false, err
		}
	}
	return false, o.ledger.Add(entry)
}

// errMayBeUsed is why something opens nothing that was good before damage was found.
var errMayBeUsed = errors.New("it may have been used before: the file that says so was damaged. Later ones open the door again")

// forget makes room by forgetting the oldest of what is over.
func (o *once) forget(now time.Time) error {
	excess := o.ledger.Len() - keptUsed + 1
	for _, entry := range o.ledger.All() {
		if excess <= 0 {
			return nil
		}
		began, _, _ := strings.Cut(entry, " ")
		seconds, err := strconv.ParseInt(began, 10, 64)
		if err == nil && now.Sub(time.Unix(seconds, 0)) < worthless {
			continue
		}
		if err := o.ledger.Remove(entry); err != nil {
			return err
		}
		excess--
	}
	if o.ledger.Len() >= mostUsed {
		return errTooManyUsed
	}
	return nil
}

// useUp takes note that the sequence at a place of a door was knocked, if it is one
// that is good once, and reports whether it was knocked before.
func (w *Wall) useUp(d *effective.Door, place int, now time.Time) (replay bool, err error) {
	switch {
	case d.Rolling != nil:
		return w.useStep(d, place, now)
	case d.OneTime != nil:
		err = d.OneTime.Use(d.Line)
		if errors.Is(err, onetime.ErrUsed) {
			return true, nil
		}
		return false, err
	}
	return false, nil
}

// useStep takes note that a step's knocks were used. Those of the present step are
// good for everybody, whatever can be remembered. The step before it, or after it, is
// for clients whose clocks are off: only the first to use it can be one, as it may have
// been overheard then.
func (w *Wall) useStep(d *effective.Door, place int, now time.Time) (replay bool, err error) {
	begins, present := d.StepOf(place)
	replay, err = w.once.take(use{begins, d.Rolling.Step, "step " + d.Name}, now)
	if present {
		return false, nil
	}
	return replay, err
}

// passwords check the one-time passwords of a door.
type passwords struct{ open, shut *otp.Verifier }

// newPasswords makes no verifier of a secret that could not be read: anybody can make
// the passwords of no secret.
func newPasswords(o *ruleset.OTP) (p passwords) {
	if o.Open.IsSet() {
		p.open = otp.NewVerifier(o.Open.Key(), o.Skew)
	}
	if o.Close.IsSet() {
		p.shut = otp.NewVerifier(o.Close.Key(), o.Skew)
	}
	return p
}

// password handles what may be a one-time password. It is called with mu held, and
// gives it up.
func (s knocks) password(f *front, door int, p packet.Packet, data []byte, e audit.Event) {
	w := s.wall
	d := &f.config.Doors[door]
	check := f.passwords[door]
	if check.open == nil { // a reload has taken them away, or the secret cannot be read
		w.mu.Unlock()
		return
	}
	code, minute, opens := check.open.Verify(data, p.Source, e.Time)
	shuts := false
	if !opens && check.shut != nil {
		code, minute, shuts = check.shut.Verify(data, p.Source, e.Time)
	}
	if !opens && !shuts {
		f.tallies[door].Add(audit.Reset)
		w.mu.Unlock()
		e.Kind, e.Code, e.Reason = audit.Reset, audit.CodeNotAPassword, "no one-time password of this minute for this address"
		w.trail.Record(e)
		return
	}
	f.tallies[door].Add(audit.Knock)
	w.opening++
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.opening--
		w.mu.Unlock()
	}()
	e.Kind, e.Code, e.Reason = audit.Knock, audit.CodePassword, "a one-time password"
	if shuts {
		e.Code, e.Reason = audit.CodeClosePassword, "a one-time password to close"
	}
	w.trail.Record(e)
	e.Reason = ""
	// By the minute, as a door can have another skew after a reload.
	replay, err := w.once.take(use{
		begins: time.Unix(60*minute, 0), early: d.OTP.Skew,
		what: fmt.Sprintf("otp %s %s", d.Name, hex.EncodeToString(code[:])),
	}, e.Time)
	switch {
	case err != nil:
		w.notOpened(e, codeOfUse(err), err)
	case replay:
		w.replayed(f, door, e)
	case shuts:
		w.knockedShut(e)
	default:
		w.open(d, e, !s.log.Drained())
	}
}

// codeOfUse returns the code of an event that says why something could not be used up.
func codeOfUse(err error) audit.Code {
	if errors.Is(err, errMayBeUsed) {
		return audit.CodeMaybeUsed
	}
	return audit.CodeNotRemembered
}
