package share

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/ownership"
	"github.com/knockwall/knockwall/internal/wall"
)

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
		nats.PingInterval(time.Second), nats.MaxPingsOutstanding(2), nats.Timeout(2 * time.Second),
		nats.NoEcho(),
		nats.ConnectHandler(c.connected), nats.ReconnectHandler(c.connected),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { c.disconnected(err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { c.disconnected(err) }),
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
	c.conn = conn
	clear(c.faults)
	c.mu.Unlock()
	c.Log(false, "connected to the NATS server "+conn.ConnectedUrlRedacted())
	c.rejoin()
}

// disconnected says that the servers are away.
func (c *Companion) disconnected(err error) {
	if err == nil {
		return // it was closed here
	}
	c.say("no NATS server can be used, so other hosts hear nothing of this one: " + err.Error())
}

// faulty says what a server does not allow.
func (c *Companion) faulty(err error) {
	if errors.Is(err, nats.ErrSlowConsumer) {
		return // the gap is noticed
	}
	c.say("the NATS server says: " + err.Error())
}

// maxFaults is how many failures are logged until a server can be used again.
const maxFaults = 8

// say logs a failure, unless it was logged since a server could last be used.
func (c *Companion) say(text string) {
	c.mu.Lock()
	known := c.faults[text] || len(c.faults) >= maxFaults
	if !known {
		c.faults[text] = true
	}
	c.mu.Unlock()
	if !known {
		c.Log(true, text)
	}
}

// isQuiet reports whether a window was closed for a reason that concerns no other host.
func isQuiet(c wall.Change) bool {
	return c.Code == audit.CodeNewRules || c.Code == audit.CodeNoLonger
}
