package main

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/bench/report"
)

// open returns the systems whose cost for a connection is compared.
func (b *bench) open() []system {
	systems := []system{noWall{}}
	for _, k := range b.knockers() {
		if k.name() == "knockwall" || k.name() == "nftables" {
			systems = append(systems, k)
		}
	}
	return append(systems, b.queues()...)
}

// connect measures connect() to an open door with the client's own TCP stack.
func (b *bench) connect(row report.Row, systems []system) error {
	stands, err := b.stand(systems, time.Hour)
	defer closeAll(stands)
	if err != nil {
		return err
	}
	for _, g := range stands {
		if err := g.letClientIn(); err != nil {
			return fmt.Errorf("%s: %w", g.system.name(), err)
		}
	}
	rounds, portion := b.pick(100, 20), 10
	took := make([]samples, len(stands))
	for i := range rounds {
		b.progress.say("round %d of %d", i+1, rounds)
		for j, g := range stands {
			s, err := g.connects(portion)
			if err != nil {
				return fmt.Errorf("%s: %w", g.system.name(), err)
			}
			took[j] = append(took[j], s...)
		}
	}
	for j, g := range stands {
		row.Cells = append(row.Cells, took[j].cell(g.system.name(), time.Microsecond))
	}
	b.add(row)
	return nil
}

// noWall is an unguarded door.
type noWall struct{}

func (noWall) name() string     { return "no wall" }
func (noWall) start(*lab) error { return nil }
func (noWall) stop()            {}

// letClientIn lets the client itself knock, if the system hears knocks.
func (g *guarded) letClientIn() error {
	k, ok := g.system.(knocker)
	if !ok {
		return nil
	}
	knocks, err := k.knocks(client)
	if err != nil {
		return err
	}
	guest := &visit{from: client, knocks: knocks}
	if err := g.visitor.visits([]*visit{guest}, unhurried); err != nil {
		return err
	}
	if !guest.letIn {
		return errors.New("the client has knocked and is not let in")
	}
	return nil
}

// connects takes samples from the lab's client.
func (g *guarded) connects(n int) (took samples, err error) {
	return took, g.lab.client.Do(func() error { // on a thread of its own
		if err := onClientsCore(); err != nil {
			return err
		}
		for range n {
			d, err := g.connectOnce()
			if err != nil {
				return fmt.Errorf("connecting: %w", err)
			}
			took = append(took, d)
		}
		return nil
	})
}

func (g *guarded) connectOnce() (time.Duration, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	// Close resets the connection, so that its port is free at once.
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return 0, err
	}
	began := time.Now()
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: server.As4(), Port: int(door.Number)})
	return time.Since(began), err
}
