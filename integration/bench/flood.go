package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/knockwall/knockwall/integration/bench/report"
	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/packet"
)

// deluge is a kind of flood. Clients knock and connect during it.
type deluge struct {
	row     string
	title   string
	systems func(*bench) []system // the systems to flood
	ports   []packet.Port         // the ports to flood; empty: the port of each system's noise
	kinds   int                   // kinds of clients, which come in turns; 0: one
	sources int
	rate    int   // packets a second; 0: as many as possible
	packets int64 // in total; 0: until the time of the flood is over
	must    bool  // knockwall must let in all clients
}

const thousand, million = 1_000, 1_000_000

var deluges = []deluge{
	{row: "flood-20k", title: "20,000 first knocks/s from 32,000 sources: clients let in", systems: (*bench).knockers, sources: 32 * thousand, rate: 20 * thousand},
	{row: "flood-full", title: "first knocks at full speed from 32,000 sources: clients let in", systems: (*bench).knockers, sources: 32 * thousand, must: true},
	{row: "flood-million", title: "50,000 first knocks/s from 1,000,000 sources: clients let in", systems: (*bench).knockers, sources: million, rate: 50 * thousand, packets: million, must: true},
	{row: "flood-knocks", title: "all knocks at full speed from 32,000 sources: clients let in", systems: only("knockwall"), ports: sequence, sources: 32 * thousand, must: true},
	{row: "flood-door", title: "SYNs to the door at full speed from 32,000 sources: clients let in", systems: only("knockwall", "nftables"), ports: []packet.Port{door}, sources: 32 * thousand, must: true},
	{row: "flood-keys", title: "garbage at full speed to the port of signed knocks: clients with keys and with sequences let in", systems: flooded(garbage), kinds: 2, sources: 32 * thousand, must: true},
	{row: "flood-unknown", title: "knocks with an unknown key at full speed: clients with keys and with sequences let in", systems: flooded(strange), kinds: 2, sources: 32 * thousand, must: true},
	{row: "flood-replay", title: "one person's used knock at full speed: clients with keys and with sequences let in", systems: flooded(replay), kinds: 2, sources: 32 * thousand, must: true},
	{row: "flood-fwknop", title: "garbage like fwknop's at full speed: clients of fwknop let in", systems: (*bench).forFwknop, sources: 32 * thousand, must: true},
}

// only returns a function that returns the systems with these names.
func only(names ...string) func(*bench) []system {
	return func(b *bench) []system {
		return slices.DeleteFunc(b.knockers(), func(s system) bool { return !slices.Contains(names, s.name()) })
	}
}

// flooded returns a function that returns a knockwall with a sequence and signed knocks, and
// with the datagrams of a flood at the port of these.
func flooded(flood func(*signed) ([][]byte, error)) func(*bench) []system {
	return func(b *bench) []system { return []system{b.wall(&signed{too: true, flood: flood})} }
}

// toll is the cost of a flood for a system, apart from the clients that it kept out.
type toll struct {
	system string
	note   string // about the packets of the flood
	cpu    time.Duration
	sent   int64
	memory float64 // MiB
	daemon bool    // if false, cpu is 0 and memory is the kernel's
}

// floods measures one kind of flood, for one system after the other.
func (b *bench) floods(d deluge) error {
	row := report.Row{ID: d.row, Title: d.title}
	if d.must {
		row.Goals = []report.Goal{{Text: "all"}}
	}
	for _, s := range d.systems(b) {
		b.progress.say("%s", s.name())
		cell, t, err := b.flood(d, s.(knocker))
		if err != nil {
			return err
		}
		row.Cells = append(row.Cells, cell)
		b.tolls[d.row] = append(b.tolls[d.row], t)
	}
	b.add(row)
	return nil
}

// guests is the tempo of clients in a flood: they knock as `knock -d 1` does, and connect
// when the system has had time to open the door. Another row measures a SYN without a
// pause. Here it would keep out the clients of all systems that open the door by a command.
var guests = tempo{between: time.Millisecond, connect: unhurried.connect}

// flood measures one flood at one system.
func (b *bench) flood(d deluge, k knocker) (c report.Cell, t toll, err error) {
	fail := func(err error) (report.Cell, toll, error) {
		return c, t, fmt.Errorf("%s: %w", k.name(), err)
	}
	g, err := b.put(k, defaultWindow, false)
	if err != nil {
		return c, t, err
	}
	defer g.close()

	slabBefore, err := settledSlab()
	if err != nil {
		return fail(err)
	}
	noise, err := k.noise()
	if err != nil {
		return fail(err)
	}
	lasts := time.Duration(b.pick(10, 4)) * time.Second
	stream := forge.Stream{
		To: server, Hardware: g.lab.hardware, Among: everywhere, Sources: d.sources,
		Ports: d.ports, Rate: d.rate, Packets: d.packets, Payload: noise.payload, Data: noise.data, Time: lasts,
	}
	if d.packets > 0 {
		lasts = time.Duration(float64(d.packets) / float64(d.rate) * float64(time.Second))
		stream.Time = 2 * lasts
	}
	if len(d.ports) == 0 {
		stream.Ports = []packet.Port{noise.port}
	}
	n := b.pick(50, 10) * max(1, d.kinds)
	clients, err := g.clients(n, lasts*9/10/time.Duration(n))
	if err != nil {
		return fail(err)
	}
	for _, c := range clients {
		c.at += lasts / 20 // by then the flood has begun
	}
	strangers := make([]*visit, 5)
	for i := range strangers {
		strangers[i] = &visit{from: g.lab.fresh(), at: lasts * time.Duration(i) / time.Duration(len(strangers))}
	}

	var cpuBefore, cpuDuring time.Duration
	t = toll{system: k.name(), daemon: k.pid() != 0}
	if t.daemon {
		if cpuBefore, err = cpu(k.pid()); err != nil {
			return fail(err)
		}
	}
	f, err := forge.StartFlood(g.lab.client, g.lab.clientLink, stream)
	if err != nil {
		return fail(err)
	}
	visited := g.visitor.visits(slices.Concat(clients, strangers), guests)
	if visited != nil {
		f.End()
		return fail(visited)
	}
	if err := f.Wait(); err != nil {
		return fail(err)
	}
	for _, s := range strangers {
		if s.letIn {
			return fail(fmt.Errorf("%s: a stranger was let in", d.row))
		}
	}
	t.sent = f.Sent()
	notes := []string{count(f.Rate()) + "/s sent"}
	if noise.note != "" {
		t.note = noise.note
		notes = append(notes, t.note)
	}
	if t.daemon {
		if cpuDuring, err = cpu(k.pid()); err != nil {
			return fail(err)
		}
		if t.memory, err = resident(k.pid()); err != nil {
			return fail(err)
		}
		notes = append(notes, fmt.Sprintf("daemon %.0f %% of a core, %.0f MiB", 100*(cpuDuring-cpuBefore).Seconds()/f.Took().Seconds(), t.memory))
		cpuAfter, err := settle(k.pid())
		if err != nil {
			return fail(err)
		}
		t.cpu = cpuAfter - cpuBefore
	} else {
		slabAfter, err := slab()
		if err != nil {
			return fail(err)
		}
		t.note, t.memory = "kernel slab", slabAfter-slabBefore
	}
	if t.sent < d.packets {
		t.note = strings.TrimPrefix(t.note+", of "+count(float64(t.sent))+" only", ", ")
	}
	return report.Cell{System: k.name(), Done: letIn(clients), Of: n, Note: strings.Join(notes, ", ")}, t, nil
}

// settledSlab waits until the kernel has freed the memory of the previous flood, whose lab
// is closed, for at most 10 s. It returns the slab memory in MiB.
func settledSlab() (float64, error) {
	const rest, much = 500 * time.Millisecond, 2 // MiB
	before, err := slab()
	for end := time.Now().Add(10 * time.Second); err == nil && time.Now().Before(end); {
		time.Sleep(rest) // a kernel that still frees memory frees far more in this time
		var now float64
		if now, err = slab(); before-now < much {
			return now, err
		}
		before = now
	}
	return before, err
}

// settle waits until a daemon has handled everything that it received, for at most 5 s, and
// returns the CPU time that it has used.
func settle(pid int) (time.Duration, error) {
	const rest = 300 * time.Millisecond
	before, err := cpu(pid)
	for end := time.Now().Add(5 * time.Second); err == nil && time.Now().Before(end); {
		time.Sleep(rest) // a busy daemon uses at least a hundredth of a second in this time
		var now time.Duration
		if now, err = cpu(pid); now == before {
			break
		}
		before = now
	}
	return before, err
}

// count writes a number with commas.
func count(f float64) string {
	s := fmt.Sprintf("%.0f", f)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// cpuRow adds the row with the CPU time for the flood of 20,000 packets a second.
func (b *bench) cpuRow() {
	row := report.Row{ID: "cpu", Title: "the daemon's CPU for 100,000 first knocks", Unit: "s"}
	for _, t := range b.tolls["flood-20k"] {
		c := report.Cell{System: t.system, N: 1, Note: t.note}
		if t.daemon {
			c.Median = t.cpu.Seconds() / float64(t.sent) * 100 * thousand
			if t.system == "fwknopd" {
				// fwknopd reads up to 100 packets ten times a second and loses all others.
				c.Note += ", most of it unread"
			}
		} else {
			c.Note = "no daemon"
		}
		row.Cells = append(row.Cells, c)
	}
	b.add(row)
}

// memoryRow adds the row with the memory after the flood from 1,000,000 sources.
func (b *bench) memoryRow() {
	row := report.Row{
		ID: "memory", Title: "memory after 1,000,000 sources have knocked once", Unit: "MiB",
		Goals: []report.Goal{{Text: "at most 64 MiB", AtMost: 64}},
	}
	for _, t := range b.tolls["flood-million"] {
		row.Cells = append(row.Cells, report.Cell{System: t.system, N: 1, Median: t.memory, Note: t.note})
	}
	b.add(row)
}
