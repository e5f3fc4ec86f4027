package control

import (
	"net"
	"net/http"
)

// Limits that the tests check.
const (
	ClientTimeout   = clientTimeout
	MaxBody         = maxBody
	MaxConnections  = maxConnections
	MaxFollowers    = maxFollowers
	MaxAnswering    = maxAnswering
	MaxRefusalDelay = patience
)

// Handler returns the handler of Serve.
func Handler(d Daemon) http.Handler { return newService(d).handler() }

// Crowd returns the functions that record the state of connections and exempt one.
func Crowd() (changed func(net.Conn, http.ConnState), exempt func(net.Conn)) {
	c := newCrowd()
	return c.changed, c.exempt
}
