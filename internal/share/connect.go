package share

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/ownership"
	"github.com/knockwall/knockwall/internal/wall"
)

// connectTimeout is how long a server may take to answer.
const connectTimeout = 2 * time.Second

// connect prepares the connection to the servers. It returns an error only for what no
// waiting can cure; if no server answers, it goes on trying.
func (c *Companion) connect() (*nats.Conn, error) {
	s := c.Share
	for _, path := range []string{s.Credentials, s.NKey, s.CA, s.Cert, s.Key} {
		if path == "" {
			continue
		}
		if err := ownership.Check(path, ownership.File); err != nil {
			return nil, err
		}
		if _, err := os.ReadFile(path); err != nil {
			return nil, err
		}
	}
	options := []nats.Option{
		nats.Name("knockwall " + c.Name),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(250 * time.Millisecond), nats.ReconnectJitter(100*time.Millisecond, 250*time.Millisecond),
		nats.ReconnectBufSize(-1),            // what was not sent is told anew, with the time that it has left then
		nats.FlusherTimeout(2 * time.Second), // publish holds the lock, so a server that takes nothing must not block it
		nats.PingInterval(time.Second), nats.MaxPingsOutstanding(2), nats.Timeout(connectTimeout),
		nats.NoEcho(),
		nats.ConnectHandler(c.connected), nats.ReconnectHandler(c.connected),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { c.notConnected(err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { c.notConnected(err) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { c.faulty(err) }),
	}
	switch {
	case s.Credentials != "":
		options = append(options, nats.UserCredentials(s.Credentials))
	case s.NKey != "":
		key, err := nats.NkeyOptionFromSeed(s.NKey)
		if err != nil {
			return nil, fmt.Errorf("%s has no seed of an NKey of a user", s.NKey)
		}
		options = append(options, key)
	}
	if slices.ContainsFunc(s.Servers, func(server string) bool { return strings.HasPrefix(server, "nats://") }) {
		// A server on this host may tell of others, to which the way would not be encrypted.
		options = append(options, nats.IgnoreDiscoveredServers())
	} else {
		config, err := c.tlsConfig()
		if err != nil {
			return nil, err
		}
		options = append(options, nats.Secure(config))
	}
	return nats.Connect(strings.Join(s.Servers, ","), options...)
}

func (c *Companion) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.Share.CA != "" {
		text, err := os.ReadFile(c.Share.CA)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s has no certificate in PEM", c.Share.CA)
		}
	}
	if c.Share.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.Share.Cert, c.Share.Key)
		if err != nil {
			return nil, fmt.Errorf("reading %s and its key: %w", c.Share.Cert, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// subscribe subscribes to what other members publish.
func (c *Companion) subscribe(conn *nats.Conn) error {
	for _, what := range []string{"news", "beat", "ask", "ask." + c.Name, "to." + c.Name, "ping." + c.Name, "pong." + c.Name} {
		if _, err := conn.Subscribe(c.prefix+"*."+what, func(m *nats.Msg) { c.heard(m.Subject, m.Data) }); err != nil {
			return fmt.Errorf("subscribing at the NATS servers: %w", err)
		}
	}
	return nil
}

// connected tells and asks everything: whatever happened while the servers were away was
// missed.
func (c *Companion) connected(conn *nats.Conn) {
	c.mu.Lock()
	c.conn, c.away = conn, nil
	clear(c.faults)
	c.mu.Unlock()
	c.Log(false, "connected to the NATS server "+conn.ConnectedUrlRedacted())
	c.rejoin()
}

// notConnected takes that a server could not be used. If it was only away, there may be others.
func (c *Companion) notConnected(err error) {
	if err == nil {
		return // it was closed here
	}
	c.mu.Lock()
	c.away = err
	c.mu.Unlock()
	if !isAway(err) {
		c.say(notHeard, err.Error(), err)
	}
}

// sayWhenAway says once that no server answers, if that has been so for longer than it takes
// to try each of them.
func (c *Companion) sayWhenAway(now time.Time) {
	c.mu.Lock()
	if c.conn != nil && c.conn.IsConnected() {
		c.reached = now
	}
	err, isLong := c.away, now.Sub(c.reached) > time.Duration(len(c.Share.Servers)+1)*connectTimeout
	c.mu.Unlock()
	if isLong {
		c.say(notHeard, "away", cmp.Or(err, nats.ErrTimeout))
	}
}

const notHeard = "no NATS server can be used, so other hosts hear nothing of this one"

// isAway reports whether a server did not answer, rather than that it answered something wrong.
func isAway(err error) bool {
	var network *net.OpError
	return errors.As(err, &network) && network.Op != "remote error" || errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrStaleConnection) || errors.Is(err, nats.ErrNoServers)
}

// faulty says what a server does not allow.
func (c *Companion) faulty(err error) {
	if errors.Is(err, nats.ErrSlowConsumer) {
		return // the gap is noticed
	}
	c.say("the NATS server says", err.Error(), err)
}

// maxFaults is how many failures are logged until a server can be used again.
const maxFaults = 8

// say logs a failure, unless one of that kind was logged since a server could last be used.
func (c *Companion) say(text, kind string, err error) {
	c.mu.Lock()
	known := c.faults[kind] || len(c.faults) >= maxFaults
	if !known {
		c.faults[kind] = true
	}
	c.mu.Unlock()
	if !known {
		c.Log(true, text+": "+err.Error())
	}
}

// isQuiet reports whether a window was closed for a reason that concerns no other host.
func isQuiet(c wall.Change) bool {
	return c.Code == audit.CodeNewRules || c.Code == audit.CodeNoLonger
}
