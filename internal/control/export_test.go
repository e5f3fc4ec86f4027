package control

import (
	"net"
	"net/http"
	"strings"
	"testing"
)

// Limits that the tests check.
const (
	ClientTimeout   = clientTimeout
	MaxBody         = maxBody
	MaxConnections  = maxConnections
	MaxFollowers    = maxFollowers
	MaxAnswering    = maxAnswering
	MaxWindows      = maxWindows
	MaxRefusalDelay = patience
)

// Handler returns the handler of Serve.
func Handler(d Daemon) http.Handler { return newService(d).handler() }

// Crowd returns the functions that record the state of connections and exempt one.
func Crowd() (changed func(net.Conn, http.ConnState), exempt func(net.Conn)) {
	c := newCrowd()
	return c.changed, c.exempt
}

// NoGo fails the test if a text has words of Go's packages, which mean nothing to a user.
func NoGo(t *testing.T, text string) {
	t.Helper()
	for _, word := range []string{"json:", "http:", "Go ", "struct", "unmarshal", "invalid character", "EOF", "i/o timeout", "net.", "dial "} {
		if strings.Contains(text, word) {
			t.Errorf("%q has %q, which is Go's", text, word)
		}
	}
}
