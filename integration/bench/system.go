package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/packet"
)

// system is what stands before a lab's door.
type system interface {
	name() string
	// start has the system stand. What it starts ends with stop, what it writes is
	// in the lab's folder, and what it tells the kernel goes with the lab.
	start(l *lab) error
	stop()
}

// knocker is a system that hides the door, and opens it for who knocks.
type knocker interface {
	system
	// knocks are what opens the door for a source. They are good once: for some
	// systems every knock is another one.
	knocks(from netip.Addr) ([]forge.Segment, error)
	// noise is what strangers flood the system with: its first knock, or what looks
	// like one.
	noise() noise
	// pid is the daemon's; 0 if the kernel does it all.
	pid() int
	// output is the end of what the daemon has written.
	output() string
}

// noise is packets to a port, datagrams with a payload of some bytes.
type noise struct {
	port    packet.Port
	payload int
}

// sequence is what opens the door where knocks are ports, and portKnocks is
// how a client knocks at them.
var sequence = []packet.Port{{Number: 4113, Protocol: packet.TCP}, {Number: 27911, Protocol: packet.TCP}, {Number: 1840, Protocol: packet.TCP}}

func portKnocks(from netip.Addr) []forge.Segment {
	var segments []forge.Segment
	for _, p := range sequence {
		segments = append(segments, syn(from, p))
	}
	return segments
}

// guarded is a lab where a system stands.
type guarded struct {
	system  system
	lab     *lab
	visitor *visitor
}

// put has a system stand in a lab of its own, and waits until it does what it is
// there for.
func (b *bench) put(s system, window time.Duration, apart bool) (g *guarded, err error) {
	g = &guarded{system: s}
	defer func() {
		if err != nil {
			g.close()
			err = fmt.Errorf("%s: %w", s.name(), err)
		}
	}()
	if g.lab, err = newLab(b.folder, window); err != nil {
		return nil, err
	}
	g.lab.apart = apart
	if nft := b.programs["nft"]; nft != "" {
		if err = run(g.lab, firewall, nft, "-f", "-"); err != nil {
			return nil, err
		}
	}
	if g.visitor, err = newVisitor(g.lab); err != nil {
		return nil, err
	}
	if err = s.start(g.lab); err != nil {
		return nil, err
	}
	if k, ok := s.(knocker); ok {
		return g, g.ready(k)
	}
	return g, nil
}

func (g *guarded) close() {
	g.system.stop()
	if g.visitor != nil {
		g.visitor.close()
	}
	if g.lab != nil {
		g.lab.close()
	}
}

// firewall is what most servers have: what is not asked for is dropped, and costs no
// answer, so that a flood is as fast as it can be. What is let through here, a system
// still has its say about.
var firewall = fmt.Sprintf(`table inet host {
	chain input {
		type filter hook input priority 10; policy drop;
		iifname "lo" accept
		ct state established,related accept
		tcp dport %d accept
		udp dport %d accept
	}
}
`, door.Number, spa.Number)

// unhurried is how a client knocks who gives every system the time that it needs.
var unhurried = tempo{between: 10 * time.Millisecond, connect: 400 * time.Millisecond}

// ready waits until a stranger is refused, and who knocks is let in.
func (g *guarded) ready(k knocker) error {
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); {
		stranger := &visit{from: g.lab.fresh()}
		guest := &visit{from: g.lab.fresh()}
		var err error
		if guest.knocks, err = k.knocks(guest.from); err != nil {
			return err
		}
		if err := g.visitor.visits([]*visit{stranger, guest}, unhurried); err != nil {
			return err
		}
		if guest.letIn && !stranger.letIn {
			return nil
		}
	}
	return fmt.Errorf("for 15 seconds it has not let in who knocks, and only them; it said:\n%s", k.output())
}

// daemon is a process that runs on a lab's server.
type daemon struct {
	cmd    *exec.Cmd
	said   tail
	exited chan struct{}
}

// launch starts a program on the server.
func launch(l *lab, cmd *exec.Cmd) (*daemon, error) {
	d := &daemon{cmd: cmd, exited: make(chan struct{})}
	cmd.Stderr = &d.said
	if cmd.Stdout == nil {
		cmd.Stdout = &d.said
	}
	err := l.server.Do(func() error {
		if l.apart {
			if err := onServersCores(); err != nil {
				return err
			}
		}
		return cmd.Start()
	})
	if err != nil {
		return nil, err
	}
	go func() {
		cmd.Wait()
		close(d.exited)
	}()
	return d, nil
}

// launchReady starts a program on the server that writes a line when it is ready.
func launchReady(l *lab, cmd *exec.Cmd) (*daemon, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	cmd.Stdout = write
	d, err := launch(l, cmd)
	write.Close()
	if err != nil {
		return nil, err
	}
	if err := read.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return nil, err
	}
	if _, err := bufio.NewReader(read).ReadString('\n'); err != nil {
		d.kill()
		return nil, fmt.Errorf("%s is not ready: %w; it said:\n%s", cmd.Path, err, d.output())
	}
	return d, nil
}

// kill ends the daemon, and waits until it has ended.
func (d *daemon) kill() {
	if d != nil {
		d.cmd.Process.Kill()
		<-d.exited
	}
}

func (d *daemon) pid() int { return d.cmd.Process.Pid }

func (d *daemon) output() string { return d.said.String() }

// tail is the end of what a program has written.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	const most = 4000
	t.b = append(t.b, p...)
	if len(t.b) > most {
		t.b = bytes.Clone(t.b[len(t.b)-most:])
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}

// run runs a command on the server to its end.
func run(l *lab, input string, name string, arguments ...string) error {
	cmd := exec.Command(name, arguments...)
	cmd.Stdin = strings.NewReader(input)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := l.server.Do(cmd.Run); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd, err, strings.TrimSpace(said.String()))
	}
	return nil
}

// cpu is what a process has used of the CPU, with those of its children that have
// ended.
func cpu(pid int) (used time.Duration, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("what CPU a daemon has used: %w", err)
	}
	// utime, stime, cutime and cstime, in hundredths of a second, are fields 14 to
	// 17; the name before may have blanks.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	for _, field := range fields[11:15] {
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		used += time.Duration(n) * 10 * time.Millisecond
	}
	return used, nil
}

// resident is how much memory a process has, in MiB.
func resident(pid int) (float64, error) {
	return kibibytes(fmt.Sprintf("/proc/%d/status", pid), "VmRSS")
}

// slab is how much memory the kernel has for its own objects, in MiB.
func slab() (float64, error) { return kibibytes("/proc/meminfo", "Slab") }

// kibibytes reads a line such as "VmRSS:    1024 kB", and returns it in MiB.
func kibibytes(path, name string) (float64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if key, value, _ := strings.Cut(line, ":"); key == name {
			var n float64
			if _, err := fmt.Sscan(value, &n); err != nil {
				return 0, fmt.Errorf("%s of %s: %w", name, path, err)
			}
			return n / 1024, nil
		}
	}
	return 0, fmt.Errorf("%s says nothing of %s", path, name)
}
