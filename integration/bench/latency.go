package main

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/knockwall/knockwall/integration/bench/report"
)

// lastKnock measures the time from just before the last knock until the door answers a
// SYN. After the knock it sends a SYN every 250 µs.
func (b *bench) lastKnock(row report.Row, systems []system) error {
	stands, err := b.stand(systems, defaultWindow)
	defer closeAll(stands)
	if err != nil {
		return err
	}
	n := b.pick(100, 20)
	took := make([]samples, len(stands))
	for i := range n {
		b.progress.say("round %d of %d", i+1, n)
		for j, g := range stands {
			d, err := g.lastKnock(i%5 == 0)
			if err != nil {
				return fmt.Errorf("%s: %w", g.system.name(), err)
			}
			took[j] = append(took[j], d)
		}
	}
	row.Unit = "ms"
	for j, g := range stands {
		row.Cells = append(row.Cells, took[j].cell(g.system.name(), time.Millisecond))
	}
	b.add(row)
	return nil
}

// lastKnock takes one sample. On request it first checks that the door is closed.
func (g *guarded) lastKnock(shut bool) (took time.Duration, err error) {
	const every = 250 * time.Microsecond
	v, from := g.visitor, g.lab.fresh()
	knocks, err := g.system.(knocker).knocks(from)
	if err != nil {
		return 0, err
	}
	if shut {
		if err := g.shut(from); err != nil {
			return 0, err
		}
	}
	last := len(knocks) - 1
	for _, k := range knocks[:last] {
		if err := k.Send(v.out); err != nil {
			return 0, err
		}
		// Only the last knock is measured, so the system must have handled this one.
		time.Sleep(unhurried.between)
	}
	return took, g.lab.precisely(func() error {
		sent := map[netip.AddrPort]bool{}
		began := time.Now()
		if err := knocks[last].Send(v.out); err != nil {
			return err
		}
		for next := began; next.Before(began.Add(5 * time.Second)); next = next.Add(every) {
			syn, err := v.connect(from)
			if err != nil {
				return err
			}
			sent[syn] = true
			for {
				to, ok, err := v.answer(next.Add(every))
				if err != nil {
					return err
				}
				if sent[to] {
					took = time.Since(began)
					return nil
				}
				if !ok {
					break
				}
			}
		}
		return errors.New("for 5 s after the last knock the door stays shut")
	})
}

// shut returns an error if the door is open to a source.
func (g *guarded) shut(from netip.Addr) error {
	syn, err := g.visitor.connect(from)
	if err != nil {
		return err
	}
	for end := time.Now().Add(200 * time.Millisecond); ; {
		to, ok, err := g.visitor.answer(end)
		if err != nil || !ok {
			return err
		}
		if to == syn { // not a late answer to another source
			return errors.New("the door was open before the knocks")
		}
	}
}

// backToBack counts the clients that are let in when they send all knocks and one SYN
// without a pause.
func (b *bench) backToBack(row report.Row, systems []system) error {
	stands, err := b.stand(systems, defaultWindow)
	defer closeAll(stands)
	if err != nil {
		return err
	}
	rounds, portion := b.pick(5, 1), 10
	row.Goals = []report.Goal{{Text: "all"}}
	for _, g := range stands {
		row.Cells = append(row.Cells, report.Cell{System: g.system.name(), Of: rounds * portion})
	}
	for i := range rounds {
		b.progress.say("round %d of %d", i+1, rounds)
		for j, g := range stands {
			const every = 20 * time.Millisecond
			clients, err := g.clients(portion, every)
			if err != nil {
				return err
			}
			if err := g.visitor.visits(clients, tempo{}); err != nil {
				return err
			}
			row.Cells[j].Done += letIn(clients)
		}
	}
	b.add(row)
	return nil
}

// clients returns visits by clients with new addresses.
func (g *guarded) clients(n int, every time.Duration) (clients []*visit, err error) {
	for i := range n {
		c := &visit{from: g.lab.fresh(), at: time.Duration(i) * every}
		if c.knocks, err = g.system.(knocker).knocks(c.from); err != nil {
			return nil, fmt.Errorf("%s: %w", g.system.name(), err)
		}
		clients = append(clients, c)
	}
	return clients, nil
}

func letIn(clients []*visit) (n int) {
	for _, c := range clients {
		if c.letIn {
			n++
		}
	}
	return n
}
