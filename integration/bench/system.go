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

// system is a program or rule set in front of a lab's door.
type system interface {
	name() string
	// start starts the system. Its processes end with stop, its files are in the lab's
	// folder, and its kernel rules disappear with the lab.
	start(l *lab) error
	stop()
}

// knocker is a system that hides the door and opens it for clients that knock.
type knocker interface {
	system
	// knocks returns the packets that open the door for a source. They are good once, as
	// for some systems every knock is different.
	knocks(from netip.Addr) ([]forge.Segment, error)
	// noise describes the packets of a flood: the system's first knock, or packets that
	// look like one.
	noise() (noise, error)
	// pid returns the process ID of the daemon, or 0 if there is none.
	pid() int
	// output returns the last output of the daemon.
	output() string
}

// noise describes packets to a port. Datagrams have a payload of that many bytes, or are
// given.
type noise struct {
	port    packet.Port
	payload int
	data    [][]byte
	note    string // what they are, if that differs from other systems
}

// sequence opens the door of systems whose knocks are ports. portKnocks returns the packets
// for it.
var sequence = []packet.Port{{Number: 4113, Protocol: packet.TCP}, {Number: 27911, Protocol: packet.TCP}, {Number: 1840, Protocol: packet.TCP}}

func portKnocks(from netip.Addr) []forge.Segment {
	var segments []forge.Segment
	for _, p := range sequence {
		segments = append(segments, syn(from, p))
	}
	return segments
}

// guarded is a lab with a running system.
type guarded struct {
	system  system
	lab     *lab
	visitor *visitor
}

// put starts a system in its own lab, and waits until it works.
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
	if g.visitor, err = newVisitor(g.lab, server); err != nil {
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

// firewall is a rule set as on most servers: it drops unwanted packets without an answer, so
// a flood is as fast as possible. The measured system still decides about packets that this
// rule set accepts.
var firewall = fmt.Sprintf(`table inet host {
	chain input {
		type filter hook input priority 10; policy drop;
		iifname "lo" accept
		ct state established,related accept
		tcp dport %d accept
		udp dport %d accept
	}
}
`, door.Number, spaPort.Number)

// unhurried is the tempo of a client that gives every system enough time.
var unhurried = tempo{between: 10 * time.Millisecond, connect: 400 * time.Millisecond}

// ready waits until a stranger is refused and a client that knocks is let in. On a busy
// machine systems that open the door by a command need more time than an unhurried client has.
func (g *guarded) ready(k knocker) error {
	const limit, most = 30 * time.Second, 4 * time.Second
	pauses := unhurried
	for began := time.Now(); time.Since(began) < limit; pauses.connect = min(2*pauses.connect, most) {
		stranger := &visit{from: g.lab.fresh()}
		guest := &visit{from: g.lab.fresh()}
		var err error
		if guest.knocks, err = k.knocks(guest.from); err != nil {
			return err
		}
		if err := g.visitor.visits([]*visit{stranger, guest}, pauses); err != nil {
			return err
		}
		if guest.letIn && !stranger.letIn {
			return nil
		}
	}
	return fmt.Errorf("after %s it still does not let in clients that knock and no others; its output:\n%s", limit, k.output())
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
		return nil, fmt.Errorf("%s is not ready: %w; its output:\n%s", cmd.Path, err, d.output())
	}
	return d, nil
}

// kill kills the daemon and waits until it has ended.
func (d *daemon) kill() {
	if d != nil {
		d.cmd.Process.Kill()
		<-d.exited
	}
}

func (d *daemon) pid() int { return d.cmd.Process.Pid }

func (d *daemon) output() string { return d.said.String() }

// tail keeps the last output of a program.
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

// run runs a command on the server and waits until it ends.
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

// cpu returns the CPU time of a process and of its ended children.
func cpu(pid int) (used time.Duration, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("reading the CPU time of a daemon: %w", err)
	}
	// proc_pid_stat(5): utime, stime, cutime and cstime, in hundredths of a second, are
	// fields 14 to 17. The name before them may contain blanks.
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

// resident returns the resident memory of a process in MiB.
func resident(pid int) (float64, error) {
	return kibibytes(fmt.Sprintf("/proc/%d/status", pid), "VmRSS")
}

// slab returns the kernel's slab memory in MiB.
func slab() (float64, error) { return kibibytes("/proc/meminfo", "Slab") }

// kibibytes reads a line such as "VmRSS:    1024 kB" and returns the value in MiB.
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
