package control

import (
	"net"
	"net/http"
)

// The bounds that the tests are about.
const (
	ClientTimeout   = clientTimeout
	MaxBody         = maxBody
	MaxConnections  = maxConnections
	MaxFollowers    = maxFollowers
	MaxAnswering    = maxAnswering
	MaxRefusalDelay = patience
)

// Handler is what Serve answers with.
func Handler(d Daemon) http.Handler { return newService(d).handler() }

// Crowd returns what is told of connections and their states, and what lets one
// of them stay.
func Crowd() (changed func(net.Conn, http.ConnState), exempt func(net.Conn)) {
	c := newCrowd()
	return c.changed, c.exempt
}
