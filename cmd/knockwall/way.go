package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os/user"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/client"
	"github.com/knockwall/knockwall/internal/hosts"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/method/passwords"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/spa"
	"github.com/knockwall/knockwall/internal/sshkeys"
	"github.com/knockwall/knockwall/internal/terminal"
)

// reach has the flags of every command that knocks.
type reach struct {
	ipv4, ipv6, udp, verbose bool
	close                    bool // ask the host to close the door
	pace                     client.Pace
	password                 password // sent instead of knocks, if wanted
}

func reachFlags(c *cobra.Command) *reach {
	r := &reach{}
	c.Flags().BoolVarP(&r.ipv4, "ipv4", "4", false, "use the host's IPv4 addresses only")
	c.Flags().BoolVarP(&r.ipv6, "ipv6", "6", false, "use the host's IPv6 addresses only")
	c.Flags().BoolVarP(&r.udp, "udp", "u", false, "knock by UDP at ports without a protocol")
	// 32 bits, as more milliseconds could overflow a time.Duration.
	milliseconds := c.Flags().Uint32P("delay", "d", 0, "`MILLISECONDS` between two knocks")
	c.Flags().DurationVar(&r.pace.Wait, "wait", 0, "wait up to `DURATION` for an answer to each TCP knock, for carriers whose proxies drop a SYN that nobody waits for")
	r.password.addFlags(c)
	c.PreRunE = func(*cobra.Command, []string) error {
		if r.ipv4 && r.ipv6 {
			return usage("-4 and -6 exclude each other: leave both out to use what the host has")
		}
		if r.pace.Wait < 0 {
			return usage("--wait takes a time that is not negative, such as 500ms")
		}
		r.pace.Pause = time.Duration(*milliseconds) * time.Millisecond
		return r.password.check(c)
	}
	return r
}

// way is a way to knock at a host.
type way struct {
	address string     // the name or address to knock at
	source  netip.Addr // the client's address that the knock is for, if it is fixed
	// knock knocks at one address of the host. It is safe for concurrent use.
	knock func(ctx context.Context, host netip.Addr) error
	// used is called once after knocks that have opened the door, as far as one can know.
	used func() error
	// mistakes are what may be wrong if the door stays closed, for people.
	mistakes []string
	release  func()
}

// resolve returns the addresses of the host.
func (w *way) resolve(ctx context.Context, r *reach, t *teller) ([]netip.Addr, error) {
	network := "ip"
	switch {
	case r.ipv4:
		network = "ip4"
	case r.ipv6:
		network = "ip6"
	case w.source.Is4():
		// The knock goes over the version of IP of its source. Behind NAT64 that is wrong, and
		// the user needs -6.
		network = "ip4"
	case w.source.IsValid():
		network = "ip6"
	}
	addrs, err := client.Resolve(ctx, network, w.address)
	if _, notName := netip.ParseAddr(strings.Trim(w.address, "[]")); err == nil && notName != nil {
		t.say("%s has %s", w.address, list(addrs))
	}
	return addrs, err
}

// list joins addresses for people.
func list(addrs []netip.Addr) string {
	var all []string
	for _, a := range addrs {
		all = append(all, a.String())
	}
	return strings.Join(all, ", ")
}

// teller writes lines for people.
type teller struct {
	mu sync.Mutex
	to io.Writer
}

func (t *teller) say(format string, a ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.to, format+"\n", a...)
}

// tell returns a teller to w if the user wants to know each step.
func (r *reach) tell(w io.Writer) *teller {
	if !r.verbose {
		w = io.Discard
	}
	return &teller{to: w}
}

// way returns the way to knock that the arguments say, or if there are none, the hosts file.
// The caller calls its release in the end.
func (r *reach) way(c *cobra.Command, host string, arguments []string, t *teller) (*way, error) {
	switch {
	case len(arguments) == 0 && r.password.isWanted:
		return nil, usage("--otp-file needs the UDP port that receives the password, after the other arguments")
	case len(arguments) == 0:
		return r.wayInFile(c, host, t)
	case r.close:
		return nil, usage("--close is for hosts in the hosts file. Knock the ports of the door's close_sequence instead")
	case r.password.isWanted:
		port, err := r.password.port(arguments)
		if err != nil {
			return nil, err
		}
		key, err := r.password.key()
		if err != nil {
			return nil, err
		}
		return r.passwordWay(host, port, key.Key(), client.Source{Addr: r.password.source}, t), nil
	}
	ports, err := r.ports(arguments)
	if err != nil {
		return nil, err
	}
	return r.sequenceWay(host, func() ([]packet.Port, error) { return ports, nil }, t), nil
}

// ports parses knocks as knockd's client knock has them, 7000 or 7000:udp, and as rule
// files have them, 7000/udp.
func (r *reach) ports(arguments []string) ([]packet.Port, error) {
	var ports []packet.Port
	for _, a := range arguments {
		p, err := packet.ParsePort(a)
		if err != nil {
			return nil, usage("%w", err)
		}
		if r.udp && saysNoProtocol(a) {
			p.Protocol = packet.UDP
		}
		ports = append(ports, p)
	}
	return ports, nil
}

func saysNoProtocol(port string) bool { return !strings.ContainsAny(port, ":/") }

// sequenceWay knocks at the ports that next returns.
func (r *reach) sequenceWay(host string, next func() ([]packet.Port, error), t *teller) *way {
	return &way{
		address: host,
		knock: func(ctx context.Context, addr netip.Addr) error {
			ports, err := next()
			if err != nil {
				return err
			}
			return client.Knock(ctx, addr, ports, r.pace, func(p packet.Port) { t.say("knocking at %s of %s", p, addr) })
		},
		used:    func() error { return nil },
		release: func() {},
		mistakes: []string{
			"the knocks are not those of the host",
			"you tried other ports of the host before, so that it does not hear your knocks for half a minute",
			"a firewall on the way drops the knocks",
		},
	}
}

// passwordWay sends one-time passwords.
func (r *reach) passwordWay(host string, port packet.Port, key []byte, from client.Source, t *teller) *way {
	return &way{
		address: host,
		source:  from.Addr,
		knock: func(ctx context.Context, addr netip.Addr) error {
			source, err := from.Towards(ctx, addr)
			if err != nil {
				return err
			}
			if !source.IsValid() {
				if source, err = client.SourceTowards(ctx, addr); err != nil {
					return err
				}
			}
			t.say("sending a one-time password to %s of %s, for source %s", port, addr, source)
			return client.SendOTP(ctx, addr, port.Number, key, source, time.Now())
		},
		used:    func() error { return nil },
		release: func() {},
		mistakes: []string{
			"the secret is not that of the host",
			"the clock here or there is off by a minute or more",
			"the host sees another address of yours than the password is for (NAT)",
			"a password of this minute was used before, and each is good once",
			fmt.Sprintf("a firewall on the way drops %s", port),
		},
	}
}

// wayInFile returns the way to knock that the hosts file says.
func (r *reach) wayInFile(c *cobra.Command, name string, t *teller) (*way, error) {
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]") // an IPv6 address
	paths := hosts.Paths()
	host, read := hosts.Find(name, paths)
	if read != nil {
		if err := terminal.WriteDiagnostics(c.ErrOrStderr(), read); err != nil {
			return nil, err
		}
		if read.Diagnostics.HasErrors() {
			return nil, &usageError{errSaid}
		}
	}
	if host == nil {
		return nil, usage("no hosts file has a block for %s: name the knocks, or add the host to %s (knockwall join)", name, strings.Join(paths, " or "))
	}
	t.say("%s: as %s says", name, host.At)
	if host.Address != "" {
		name = host.Address
	}
	if host.Keyed != nil {
		return r.keyedWay(c, name, host, t)
	}
	if host.Fwknop != nil {
		return r.fwknopWay(name, host, t)
	}
	switch m := host.Method.(type) {
	case *passwords.OTP:
		key := m.Open
		if r.close {
			key = m.Close
		}
		if !key.IsSet() {
			return nil, usage("%s has no close_secret, so that nothing closes the door", host.At)
		}
		return r.passwordWay(name, m.Port, key.Key(), host.Source, t), nil
	case method.Sequences:
		if r.close {
			return nil, usage("%s is a way to open the door only: knock the ports of its close_sequence", host.At)
		}
		return r.methodWay(name, m, t), nil
	}
	return nil, fmt.Errorf("%s: there is no client for this way to knock", host.At)
}

// methodWay knocks the sequence that a method has at the time.
func (r *reach) methodWay(host string, m method.Sequences, t *teller) *way {
	resolve := func() (s method.State, err error) {
		if s, err = m.Resolve(time.Now()); err == nil && len(s.Sequences) == 0 {
			err = errors.New("all sequences of the list are used")
		}
		return s, err
	}
	w := r.sequenceWay(host, func() ([]packet.Port, error) {
		s, err := resolve()
		if err != nil {
			return nil, err
		}
		return s.Sequences[s.Present], nil
	}, t)
	// The host marks a line of a list as used, and so does the client.
	w.used = func() error {
		s, err := resolve()
		if err != nil {
			return err
		}
		_, err = m.Use(s, s.Present, time.Now(), func(method.Use, time.Time) (bool, error) { return false, nil })
		return err
	}
	if m.Traits().Clock {
		w.mistakes = append(w.mistakes, "the clock here or there is off")
	}
	if m.Traits().Consumes {
		w.mistakes = append(w.mistakes, "the first unused line of the list is another one there than here")
	}
	return w
}

// keyedWay sends datagrams that an ssh key signs.
func (r *reach) keyedWay(c *cobra.Command, name string, host *hosts.Host, t *teller) (*way, error) {
	ring, err := sshkeys.Find(host.Keyed.Key, sshkeys.AskTerminal)
	if err != nil {
		return nil, err
	}
	what := spa.Open
	if r.close {
		what = spa.Close
	}
	k := &client.Keyed{
		Identity: host.Keyed.Identity, Door: host.Keyed.Door, Port: host.Keyed.Port, What: what,
		Keys: ring.Keys, Source: host.Source,
		Said: func(addr netip.Addr, key sshkeys.Key, source netip.Addr) {
			from := "the address that it comes from"
			if source.IsValid() {
				from = source.String()
			}
			t.say("knocking at %d/udp of %s for %s, signed by %s", host.Keyed.Port, addr, from, key)
			if key.IsInHardware() {
				fmt.Fprintln(c.ErrOrStderr(), "Touch the security key.")
			}
		},
	}
	w := &way{
		address: name, source: host.Source.Addr, knock: k.Knock,
		used:    func() error { return nil },
		release: func() { ring.Close() },
	}
	for _, key := range ring.Keys {
		w.mistakes = append(w.mistakes, "the host does not know "+key.String())
	}
	w.mistakes = append(w.mistakes,
		fmt.Sprintf("its identity or the name of the door %q is another: see %s", host.Keyed.Door, host.At),
		"the clock here or there is off by two minutes or more",
		fmt.Sprintf("a firewall on the way drops %d/udp", host.Keyed.Port))
	return w, nil
}

// fwknopWay sends datagrams as fwknop's client does.
func (r *reach) fwknopWay(name string, host *hosts.Host, t *teller) (*way, error) {
	if r.close {
		return nil, usage("%s is a way to open the door only: fwknop has no datagram that closes one", host.At)
	}
	f := *host.Fwknop
	f.Source = host.Source
	if f.User == "" {
		me, err := user.Current()
		if err != nil {
			return nil, fmt.Errorf("finding your user name, which a datagram of fwknop has: %w: write user in %s", err, host.At)
		}
		f.User = me.Username
	}
	return &way{
		address: name,
		source:  f.Source.Addr,
		knock: func(ctx context.Context, addr netip.Addr) error {
			source, err := f.Knock(ctx, addr)
			if err != nil {
				return err
			}
			from := "the address that it comes from"
			if source.IsValid() {
				from = source.String()
			}
			t.say("knocked at %d/udp of %s for %s, as fwknop does", f.Port, addr, from)
			return nil
		},
		used:    func() error { return nil },
		release: func() {},
		mistakes: []string{
			"key, hmac_key or hmac is not that of the host: see " + host.At,
			fmt.Sprintf("the host wants another user than %q, or does not guard the ports in access", f.User),
			"the clock here or there is off by two minutes or more",
			fmt.Sprintf("a firewall on the way drops %d/udp", f.Port),
		},
	}, nil
}
