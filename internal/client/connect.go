package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// Dialer connects to a TCP port of a host after knocking.
type Dialer struct {
	Port uint16
	// Knock knocks at one address of the host. It is called for several addresses at a time.
	Knock func(ctx context.Context, host netip.Addr) error
	// Timeout is how long the connection to one address may take, after the knock.
	Timeout time.Duration
	// Said is told each step, for people.
	Said func(step string)
}

const (
	// attemptDelay is how long an address has to answer before the next one is tried at the
	// same time: "Connection Attempt Delay" of RFC 8305, section 5.
	attemptDelay = 250 * time.Millisecond
	// firstTry is how long an address has to answer before the second knock. A SYN that the
	// host did not answer is sent again after one second.
	firstTry = 3 * time.Second
	// settle is how long a host that refused the connection has to act on the knocks.
	settle = 100 * time.Millisecond
)

// ConnectError says why no address of a host could be connected to.
type ConnectError struct{ Failures []Failure }

// Failure says why one address could not be connected to.
type Failure struct {
	Addr netip.Addr
	Err  error
	// Knocked says that the knocks were sent, and that it is the connection that failed.
	Knocked bool
}

// IsRefused reports whether something at the address, or on the way there, refused the
// connection. So the host is not silent.
func (f *Failure) IsRefused() bool { return errors.Is(f.Err, errRefused) }

func (e *ConnectError) Error() string {
	var all []string
	for _, f := range e.Failures {
		all = append(all, f.Err.Error())
	}
	return strings.Join(all, "\n")
}

func (e *ConnectError) Unwrap() (all []error) {
	for _, f := range e.Failures {
		all = append(all, f.Err)
	}
	return all
}

// Connect knocks at the addresses of a host and connects to the first that answers, as RFC
// 8305 says (happy eyeballs): the versions of IP take turns, and as long as an address does
// not answer, the next one is tried too. Each address is knocked at right before the
// connection to it. If that fails, it is knocked at once more. The error is a
// [*ConnectError].
func (d *Dialer) Connect(ctx context.Context, host []netip.Addr) (*net.TCPConn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	waiting := inTurns(host)
	results := make(chan result, len(waiting))
	knocked := make(chan struct{}, 2*len(waiting))
	running := 0
	defer func() { // another address may have answered meanwhile
		go func() {
			for range running {
				if late := <-results; late.conn != nil {
					late.conn.Close()
				}
			}
		}()
	}()
	next := func() {
		if len(waiting) == 0 {
			return
		}
		addr := waiting[0]
		waiting = waiting[1:]
		running++
		go func() { results <- d.try(ctx, addr, knocked) }()
	}
	failed := &ConnectError{}
	var delay <-chan time.Time
	next()
	for running > 0 {
		select {
		case <-knocked:
			delay = time.After(attemptDelay)
		case <-delay:
			next()
		case r := <-results:
			running--
			if r.conn != nil {
				return r.conn, nil
			}
			failed.Failures = append(failed.Failures, r.Failure)
			next()
		}
	}
	return nil, failed
}

type result struct {
	conn *net.TCPConn
	Failure
}

// try knocks and connects, twice if it has to.
func (d *Dialer) try(ctx context.Context, addr netip.Addr, knocked chan<- struct{}) result {
	to := netip.AddrPortFrom(addr, d.Port)
	first := min(d.Timeout/2, firstTry)
	var err error
	for i, timeout := range []time.Duration{first, d.Timeout - first} {
		if i > 0 {
			d.Said(fmt.Sprintf("once more, as the knocks may be lost: %s", addr))
		}
		if err := d.Knock(ctx, addr); err != nil {
			return result{Failure: Failure{addr, err, false}}
		}
		knocked <- struct{}{}
		d.Said(fmt.Sprintf("connecting to %s", to))
		var conn *net.TCPConn
		if conn, err = dialKnocked(ctx, to, timeout); err == nil {
			d.Said(fmt.Sprintf("connected to %s", to))
			return result{conn: conn}
		}
		if ctx.Err() != nil {
			break
		}
		err = fmt.Errorf("connecting to %s after the knocks: %w", to, reason(err))
		d.Said(err.Error())
	}
	return result{Failure: Failure{addr, err, true}}
}

// dialKnocked connects. A SYN can overtake its knocks on the way, and a door that rejects
// strangers then rejects it. So a refused connection is tried once more.
func dialKnocked(ctx context.Context, to netip.AddrPort, timeout time.Duration) (*net.TCPConn, error) {
	conn, err := dial(ctx, to, timeout)
	if errors.Is(err, errRefused) {
		select {
		case <-time.After(settle):
			return dial(ctx, to, timeout)
		case <-ctx.Done():
		}
	}
	return conn, err
}

// inTurns orders addresses so that the versions of IP take turns, beginning with that of the
// first address: RFC 8305, section 4.
func inTurns(addrs []netip.Addr) (ordered []netip.Addr) {
	var first, second []netip.Addr
	for _, a := range addrs {
		if a.Is4() == addrs[0].Is4() {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	for len(first)+len(second) > 0 {
		if len(first) > 0 {
			ordered, first = append(ordered, first[0]), first[1:]
		}
		if len(second) > 0 {
			ordered, second = append(ordered, second[0]), second[1:]
		}
	}
	return ordered
}

func dial(ctx context.Context, to netip.AddrPort, timeout time.Duration) (*net.TCPConn, error) {
	dialer := net.Dialer{Timeout: timeout}
	return dialer.DialTCP(ctx, "tcp", netip.AddrPort{}, to)
}

// unanswered is a timeout in plain words.
type unanswered struct{ error }

func (unanswered) Error() string   { return "no answer" }
func (u unanswered) Unwrap() error { return u.error }

// reason returns an error of package net in the system's words: without the call, and
// without the names and addresses, which the caller knows.
func reason(err error) error {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return errors.New(dns.Err)
	}
	if wrong, ok := errors.AsType[*net.AddrError](err); ok {
		return errors.New(wrong.Err)
	}
	if number, ok := errors.AsType[syscall.Errno](err); ok && !number.Timeout() {
		return number
	}
	if isTimeout(err) {
		return unanswered{err}
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// Join copies in to the connection, and the connection to out, until the other side
// closes the connection. At the end of in, it closes the connection for writing.
func Join(conn *net.TCPConn, in io.Reader, out io.Writer) error {
	go func() {
		// If sending fails, reading from the connection ends.
		_, _ = io.Copy(conn, in)
		_ = conn.CloseWrite()
	}()
	if _, err := io.Copy(out, conn); err != nil {
		return fmt.Errorf("the connection to %s has broken: %w", conn.RemoteAddr(), reason(err))
	}
	return nil
}
