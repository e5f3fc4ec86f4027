package control

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// crowd closes the connection that has been inactive for longest when there are too many.
type crowd struct {
	mu     sync.Mutex
	all    *list.List // of net.Conn, longest inactive first
	places map[net.Conn]*list.Element
}

func newCrowd() *crowd { return &crowd{all: list.New(), places: map[net.Conn]*list.Element{}} }

// changed is the ConnState of [http.Server].
func (c *crowd) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch place := c.places[conn]; {
	case state == http.StateNew:
		if c.all.Len() >= maxConnections {
			longest := c.all.Front().Value.(net.Conn)
			c.leave(longest)
			longest.Close()
		}
		c.places[conn] = c.all.PushBack(conn)
	case place == nil: // it has left already
	case state == http.StateClosed, state == http.StateHijacked:
		c.leave(conn)
	default:
		c.all.MoveToBack(place)
	}
}

// exempt lets a connection stay however long it is inactive.
func (c *crowd) exempt(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.places[conn] != nil {
		c.leave(conn)
	}
}

func (c *crowd) leave(conn net.Conn) {
	c.all.Remove(c.places[conn])
	delete(c.places, conn)
}

// connection is the key of a request's connection in its context.
type connection struct{}
