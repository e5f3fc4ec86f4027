package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/knockwall/knockwall/integration/bench/report"
	"github.com/knockwall/knockwall/integration/lab/natslab"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/netlab"
	"github.com/knockwall/knockwall/internal/wall"
)

const (
	manyMembers = 3
	groupName   = "bench"
	natsPort    = 4222
)

// hub is a machine with the NATS server of a group, on a cable with each member's server.
type hub struct {
	host   *netlab.Host
	nats   *daemon
	folder string
}

// address returns the hub's address on the cable to a member.
func (*hub) address(member int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 9, byte(member), 2})
}

// newHub starts a server that knows the members, and a listener who may only hear them.
func newHub(folder, binary string) (h *hub, err error) {
	h = &hub{}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	if h.folder, err = os.MkdirTemp(folder, ""); err != nil {
		return h, err
	}
	var addresses []netip.Addr
	var users strings.Builder
	for i := range manyMembers {
		addresses = append(addresses, h.address(i))
	}
	for _, name := range append(memberNames(), "listener") {
		public, err := natslab.NewKey(filepath.Join(h.folder, name))
		if err != nil {
			return h, err
		}
		users.WriteString(natslab.User(public, groupName, name))
	}
	if err := natslab.Certify(h.folder, addresses...); err != nil {
		return h, err
	}
	config := filepath.Join(h.folder, "nats.conf")
	text := fmt.Sprintf("listen: \"0.0.0.0:%d\"\ntls { cert_file: %q, key_file: %q }\nauthorization { users: [\n%s] }\n",
		natsPort, filepath.Join(h.folder, "cert.pem"), filepath.Join(h.folder, "key.pem"), users.String())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return h, err
	}
	if h.host, err = netlab.NewHost(); err != nil {
		return h, err
	}
	h.nats, err = launch(&lab{server: h.host, apart: true}, exec.Command(binary, "-c", config))
	return h, err
}

func memberNames() (all []string) {
	for i := range manyMembers {
		all = append(all, fmt.Sprintf("host%d", i))
	}
	return all
}

func (h *hub) close() {
	h.nats.kill()
	if h.host != nil {
		h.host.Close()
	}
	os.RemoveAll(h.folder)
}

// listen connects a client to the server on the hub itself.
func (h *hub) listen() (conn *nats.Conn, err error) {
	key, err := nats.NkeyOptionFromSeed(filepath.Join(h.folder, "listener"))
	if err != nil {
		return nil, err
	}
	err = h.host.Do(func() error {
		conn, err = nats.Connect(fmt.Sprintf("tls://127.0.0.1:%d", natsPort), key, nats.RootCAs(filepath.Join(h.folder, "ca.pem")), nats.NoReconnect())
		return err
	})
	return conn, err
}

// member is a knockwall with a companion. The door's windows are shared.
type member struct {
	*knockwall
	hub       *hub
	number    int
	program   string // the companion's
	companion *daemon
}

func (m *member) start(l *lab) error {
	own := m.hub.address(m.number).Prev()
	prefixes := func(a netip.Addr) []netip.Prefix { return []netip.Prefix{netip.PrefixFrom(a, 30)} }
	if _, _, err := netlab.Link(l.server, m.hub.host, prefixes(own), prefixes(own.Next())); err != nil {
		return err
	}
	m.more = fmt.Sprintf("share {\n  group = %q\n  name = %q\n  servers = [\"tls://%s:%d\"]\n  nkey = %q\n  tls { ca = %q }\n}\n",
		groupName, m.title, own.Next(), natsPort, filepath.Join(m.hub.folder, m.title), filepath.Join(m.hub.folder, "ca.pem"))
	if err := m.knockwall.start(l); err != nil {
		return err
	}
	var err error
	m.companion, err = launch(l, exec.Command(m.program, "--config", m.file(l), "--control", m.control(l)))
	return err
}

func (m *member) stop() {
	m.companion.kill()
	m.knockwall.stop()
}

// members returns the systems of a group. Its NATS server and the companion are built only
// for it, as they are large. Where Go cannot load their sources, there are none.
func (b *bench) members() (all []system) {
	server, companion := filepath.Join(b.folder, "nats-server"), filepath.Join(b.folder, "knockwall-share")
	for _, arguments := range [][]string{
		{"-o", companion, "./cmd/knockwall-share"},
		{"-o", server, "-modfile=internal/tools/go.mod", "github.com/nats-io/nats-server/v2"},
	} {
		if out, err := exec.Command("go", append([]string{"build"}, arguments...)...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "bench: the group of hosts is left out: %v: %s\n", err, out)
			return nil
		}
	}
	h, err := newHub(b.folder, server)
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: the group of hosts is left out: %v\n", err)
		return nil
	}
	for i, name := range memberNames() {
		all = append(all, &member{knockwall: &knockwall{title: name, binary: b.programs["knockwall"], way: plain{}}, hub: h, number: i, program: companion})
	}
	return all
}

// localKnock is the name of the cell for a SYN to the host where the client has knocked.
const localKnock = "the same host"

// shared measures how long a client waits that knocks at one host and connects to another
// one without a pause, and what takes the time.
func (b *bench) shared(row report.Row, systems []system) error { return b.group(row, systems, false) }

// shared6 is shared for a client with IPv6.
func (b *bench) shared6(row report.Row, systems []system) error { return b.group(row, systems, true) }

func (b *bench) group(row report.Row, systems []system, ipv6 bool) error {
	if len(systems) == 0 {
		b.add(row)
		return nil
	}
	hub := systems[0].(*member).hub
	defer hub.close()
	stands, err := b.stand(systems, defaultWindow)
	defer closeAll(stands)
	if err != nil {
		return err
	}
	g := &grouped{stands: stands, hub: hub, ipv6: ipv6}
	if ipv6 {
		for _, s := range stands {
			s.visitor.close()
			if s.visitor, err = newVisitor(s.lab, server6); err != nil {
				return err
			}
		}
	}
	if err := g.agree(); err != nil {
		return err
	}
	n := b.pick(200, 20)
	done := 0
	var across, local, open samples
	for i := range n {
		b.progress.say("round %d of %d", i+1, n)
		at, to := g.pair(i)
		took, err := g.comes(at, to, i%5 == 0)
		if err != nil {
			return err
		}
		if took.letIn {
			done++
			across, open = append(across, took.syn), append(open, took.open)
		}
		if took, err = g.comes(at, at, false); err != nil {
			return err
		}
		if !took.letIn {
			return errors.New("a client was not let in where it had knocked")
		}
		local = append(local, took.syn)
	}
	if done == 0 {
		return errors.New("no client was let in at another host")
	}
	// What listens needs time, too, so the whole is measured without it.
	heard, stop, err := g.listen()
	defer stop()
	if err != nil {
		return err
	}
	var first, second, third samples
	for i := range n {
		b.progress.say("part %d of %d", i+1, n)
		at, to := g.pair(i)
		took, err := g.comes(at, to, false)
		if err != nil {
			return err
		}
		api, news, err := heard.of(took.from, at.system.name())
		if err != nil {
			return err
		}
		if took.letIn {
			first, second, third = append(first, api.Sub(took.knocked)), append(second, news.Sub(api)), append(third, took.knocked.Add(took.syn).Sub(news))
		}
	}
	if len(first) == 0 {
		return errors.New("no client was let in at another host while something listens")
	}
	row.Unit = "ms"
	whole := across.cell(report.Knockwall, time.Millisecond)
	whole.Done, whole.Of = done, n
	row.Cells = append(row.Cells, whole, local.cell(localKnock, time.Millisecond))
	for _, part := range []struct {
		name, note string
		took       samples
	}{
		{"an open door", "network alone", open},
		{"knock to API", "set, API", first},
		{"API to NATS", "NATS", second},
		{"NATS to let in", "API, set", third},
	} {
		c := part.took.cell(part.name, time.Millisecond)
		c.Note = part.note
		row.Cells = append(row.Cells, c)
	}
	b.add(row)
	return nil
}

// grouped is a group of hosts, each in its own lab. A client has the same address in all.
type grouped struct {
	stands []*guarded
	hub    *hub
	ipv6   bool
	visits int
}

// pair returns the host where the i-th client knocks, and the one that it connects to.
func (g *grouped) pair(i int) (at, to *guarded) {
	return g.stands[i%len(g.stands)], g.stands[(i+1)%len(g.stands)]
}

// fresh returns an address that no client has used yet in any lab.
func (g *grouped) fresh() netip.Addr {
	for _, s := range g.stands {
		g.visits = max(g.visits, s.lab.visits)
	}
	first := g.stands[0].lab
	first.visits = g.visits
	if g.ipv6 {
		return first.fresh6()
	}
	return first.fresh()
}

// agree waits until each host lets in who has knocked at the one before it.
func (g *grouped) agree() error {
	const limit = 30 * time.Second
	for i := range g.stands {
		at, to := g.pair(i)
		for began := time.Now(); ; {
			took, err := g.comes(at, to, false)
			if err != nil {
				return err
			}
			if took.letIn {
				break
			}
			if time.Since(began) > limit {
				return fmt.Errorf("after %s the hosts share no windows; the companion says:\n%s", limit, to.system.(*member).companion.output())
			}
		}
	}
	return nil
}

// coming is what a client has seen.
type coming struct {
	from    netip.Addr
	knocked time.Time     // just before its last knock
	syn     time.Duration // from then to the answer to its SYN
	open    time.Duration // from another SYN to the answer
	letIn   bool
}

// comes lets a client with a new address knock at a host and send one SYN to a host without
// a pause, and then another SYN. On request it first checks that the door is closed there.
func (g *grouped) comes(at, to *guarded, shut bool) (c coming, err error) {
	c.from = g.fresh()
	if shut {
		if err := to.shut(c.from); err != nil {
			return c, err
		}
	}
	knocks, err := at.system.(knocker).knocks(c.from)
	if err != nil {
		return c, err
	}
	return c, to.lab.precisely(func() error {
		for i, k := range knocks {
			if i == len(knocks)-1 {
				c.knocked = time.Now()
			}
			if err := k.Send(at.visitor.out); err != nil {
				return err
			}
		}
		if c.letIn, err = to.isLetIn(c.from); err != nil || !c.letIn {
			return err
		}
		c.syn = time.Since(c.knocked)
		began := time.Now()
		again, err := to.isLetIn(c.from)
		c.open = time.Since(began)
		if err == nil && !again {
			err = errors.New("an open door does not answer")
		}
		return err
	})
}

// isLetIn sends one SYN, and reports whether the door answers it in time.
func (g *guarded) isLetIn(from netip.Addr) (bool, error) {
	syn, err := g.visitor.connect(from)
	if err != nil {
		return false, err
	}
	for end := time.Now().Add(patience); ; {
		to, ok, err := g.visitor.answer(end)
		if err != nil || !ok || to == syn {
			return ok, err
		}
	}
}

// onNATS is the place where the news of a group is heard that is no host.
const onNATS = ""

// hearing is when something was heard first of each source, at each place: a host's API, or
// the NATS server.
type hearing struct {
	mu    sync.Mutex
	times map[place]time.Time
	more  chan struct{} // closed at the next
}

type place struct {
	source netip.Addr
	host   string
}

func (h *hearing) note(p place) {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.times[p]; !ok {
		h.times[p] = now
		close(h.more)
		h.more = make(chan struct{})
	}
}

// of returns when a source was first heard of at the API of a host, and at the NATS server.
func (h *hearing) of(source netip.Addr, host string) (api, news time.Time, err error) {
	timeout := time.After(5 * time.Second)
	for {
		h.mu.Lock()
		api, news = h.times[place{source, host}], h.times[place{source, onNATS}]
		more := h.more
		h.mu.Unlock()
		if !api.IsZero() && !news.IsZero() {
			return api, news, nil
		}
		select {
		case <-more:
		case <-timeout:
			return api, news, fmt.Errorf("nothing was heard of %s", source)
		}
	}
}

// listen hears what the hosts' APIs and the members tell. Call stop even after an error.
func (g *grouped) listen() (h *hearing, stop func(), err error) {
	h = &hearing{times: map[place]time.Time{}, more: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	var following sync.WaitGroup
	stop = func() {
		cancel()
		following.Wait()
	}
	for _, s := range g.stands {
		m := s.system.(*member)
		known := make(chan struct{})
		isKnown := sync.OnceFunc(func() { close(known) }) // a follower that is too slow gets the state again
		following.Go(func() {
			// If it fails, nothing is heard, and that is an error then.
			_ = control.NewClient(m.control(s.lab)).FollowChanges(ctx, "", func(c wall.Change) error {
				switch c.Kind {
				case wall.StateKnown:
					isKnown()
				case wall.ChangeOpen:
					h.note(place{c.Source.Addr(), m.name()})
				}
				return nil
			})
		})
		select {
		case <-known:
		case <-time.After(10 * time.Second):
			return h, stop, fmt.Errorf("%s does not tell its state", m.name())
		}
	}
	conn, err := g.hub.listen()
	if err != nil {
		return h, stop, err
	}
	end := stop
	stop = func() {
		conn.Close()
		end()
	}
	_, err = conn.Subscribe("knockwall."+groupName+".*.news", func(m *nats.Msg) {
		// A listener needs not understand it: the source is a word in it.
		for word := range strings.SplitSeq(string(m.Data), `"`) {
			if a, err := netip.ParseAddr(word); err == nil {
				h.note(place{a, onNATS})
			}
		}
	})
	if err == nil {
		err = conn.Flush()
	}
	return h, stop, err
}
