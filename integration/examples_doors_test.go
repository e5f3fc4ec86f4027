package integration

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/method/fixed"
	"github.com/knockwall/knockwall/internal/method/rolling"
	"github.com/knockwall/knockwall/internal/otp"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// examples are the tests of the examples, by name.
var examples = map[string]func(*example){
	"ssh":       (*example).ssh,
	"vpn":       (*example).vpn,
	"web-admin": (*example).webAdmin,
	"docker":    (*example).docker,
	"ufw":       (*example).ufw,
	"gateway":   (*example).gateway,
	"phone":     (*example).phone,
	"otp":       (*example).passwords,
	"rolling":   (*example).rolling,
	"one-time":  (*example).oneTime,
	"commands":  (*example).commands,
}

// neighbours returns addresses of the client's network that no host has: two within one
// prefix of phone.hcl, and one outside.
func (e *example) neighbours() (one, two, outside netip.Addr) {
	return nth(1, e.to), nth(2, e.to), e.self
}

func (e *example) ssh() {
	e.serve(22)
	e.run()
	e.shut(e.self, tcp(22), "it has not knocked")
	e.opens("ssh", e.knocks()[0])
	e.open(e.self, tcp(22), "it has knocked")
	e.shut(nth(1, e.to), tcp(22), "another one has knocked")

	// A scan in ascending order reaches a trap before the knocks. The correct sequence
	// right after it opens nothing.
	steps := sequenceOf(e.door("ssh"))
	scanner := nth(2, e.to)
	e.knock(scanner, e.to, tcp(steps[0].Number-1))
	e.d.waitFor("trapped", "source="+scanner.String()+" ")
	e.knock(scanner, e.to, steps...)
	e.shut(scanner, tcp(22), "it was trapped")
}

// sequenceOf returns the sequence of a door.
func sequenceOf(d *ruleset.Door) []packet.Port {
	return d.Methods[0].(*fixed.Sequence).Sequences[0]
}

func (e *example) vpn() {
	e.serveUDP(51820, e.to)
	e.run()
	e.shut(e.self, udp(51820), "it has not knocked")
	e.opens("vpn", e.knocks()[0])
	e.open(e.self, udp(51820), "it has knocked")
}

func (e *example) webAdmin() {
	e.serve(8443)
	e.serve(443)
	e.run()
	e.open(e.self, tcp(443), "the rest of the server is for everybody")
	e.shut(e.self, tcp(8443), "it has not knocked")
	opening, closing := e.knocks()[0], e.knocks()[1]
	e.opens("admin", opening)
	e.open(e.self, tcp(8443), "it has knocked")
	e.types(closing)
	e.d.waitFor("closed", "door=admin")
	e.shut(e.self, tcp(8443), "it has knocked to close the door")

	// A computer whose IPv6 address has changed within its network.
	one, two, _ := e.neighbours()
	e.knock(one, e.to, sequenceOf(e.door("admin"))...)
	eventually(e.t, "the door is open for it", func() bool { return e.d.logged("opened", "door=admin") == 2 })
	e.open(one, tcp(8443), "it has knocked")
	if e.to.Is6() {
		e.open(two, tcp(8443), "somebody of its /64 has knocked")
	} else {
		e.shut(two, tcp(8443), "another address has knocked")
	}
}

// dockersRules are the rules of Docker for --publish 8080:80. The test has no Docker; a
// plain host takes the place of the container.
const dockersRules = `
table %[1]s nat {
	chain PREROUTING { type nat hook prerouting priority dstnat; policy accept; fib daddr type local counter jump DOCKER; }
	chain DOCKER { tcp dport 8080 counter dnat to %[2]s; }
}
table %[1]s filter {
	chain FORWARD { type filter hook forward priority filter; policy drop; jump DOCKER; }
	chain DOCKER { ct state established,related accept; %[1]s daddr %[3]s tcp dport 80 accept; }
}`

func (e *example) docker() {
	e.addInside(80)
	e.nftScript(fmt.Sprintf(dockersRules, "ip", inside.String()+":80", inside) +
		fmt.Sprintf(dockersRules, "ip6", "["+inside6.String()+"]:80", inside6))
	e.open(e.self, tcp(8080), "there is no wall yet, and else this would test nothing")
	e.run()
	e.shut(e.self, tcp(8080), "it has not knocked")
	e.opens("container", e.knocks()[0])
	e.open(e.self, tcp(8080), "it has knocked")
	session, err := e.dial(e.self, e.to, 8080, deadline)
	must(e.t, err)
	defer session.Close()
	e.closes("container", e.self)
	e.shut(e.self, tcp(8080), "the door is closed again")
	must(e.t, talks(session))
}

// ufwsRules have the structure of ufw's rules: they drop in the input hook, long after
// the wall.
const ufwsRules = `table inet ufw {
	chain input {
		type filter hook input priority filter; policy drop;
		iifname lo accept
		ct state established,related accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
		jump user-input
	}
	chain user-input {}
}`

func (e *example) ufw() {
	e.serve(22)
	e.nftScript(ufwsRules)
	e.run()
	e.opens("ssh", e.knocks()[0]) // no rule of ufw accepts the knocks
	e.shut(e.self, tcp(22), "ufw does not allow it, whoever has knocked")
	e.nftScript(`add rule inet ufw user-input tcp dport 22 accept`)
	e.open(e.self, tcp(22), "it has knocked, and ufw allows it")
	e.shut(nth(1, e.to), tcp(22), "it has not knocked, though ufw allows it")
}

func (e *example) gateway() {
	e.serve(22)
	e.addInside(22)
	gateway := e.to
	e.to = inside
	if gateway.Is6() {
		e.to = inside6
	}
	e.open(e.self, tcp(22), "there is no wall yet, and else this would test nothing")
	e.run()
	e.shut(e.self, tcp(22), "it has not knocked")
	if !e.letsIn(e.self, gateway, 22) {
		e.t.Error("the gateway's own ssh is shut, too")
	}
	e.opens("inside", e.knocks()[0])
	e.open(e.self, tcp(22), "it has knocked")
}

func (e *example) phone() {
	e.serve(22)
	e.run()
	one, two, outside := e.neighbours()
	steps := sequenceOf(e.door("phone"))
	if e.to.Is4() {
		// A carrier's address pool: each knock comes from another address.
		for i, step := range steps {
			e.knock(nth(10+i, e.to), e.to, step)
		}
		e.d.waitFor("opened", "source=10.1.0.0/24")
		outside = nth(1<<8, e.to) // the next /24
	} else {
		e.knock(one, e.to, steps...)
		e.d.waitFor("opened", "source=2001:db8:1::/64")
	}
	e.open(two, tcp(22), "somebody of its prefix has knocked")
	e.shut(outside, tcp(22), "nobody of its prefix has knocked")
	for _, command := range e.knocks() { // for IPv6
		e.opens("phone", command)
		e.open(e.self, tcp(22), "it has knocked")
	}

	// The penalty applies to the whole prefix.
	e.closes("phone", one)
	e.knock(one, e.to, tcp(steps[0].Number-1))
	e.d.waitFor("trapped", "door=phone")
	e.knock(two, e.to, steps...)
	e.shut(two, tcp(22), "a neighbour of it was trapped")
}

func (e *example) passwords() {
	e.serve(22)
	e.serveUDP(51820, e.to)
	for _, name := range []string{"open", "close"} {
		e.copy(e.file("secrets/ssh-"+name), e.file("home/.ssh/server-"+name))
	}
	e.copy(e.file("credentials/vpn-open"), e.file("home/.ssh/vpn-open"))
	e.run()
	e.shut(e.self, tcp(22), "it has sent no password")
	open, shut, byNAT, vpn := e.knocks()[0], e.knocks()[1], e.knocks()[2], e.knocks()[3]
	e.opens("ssh", open)
	e.open(e.self, tcp(22), "it has sent a password")
	e.shut(nth(1, e.to), tcp(22), "somebody else has sent a password")
	e.types(shut)
	e.d.waitFor("closed", "door=ssh")
	e.shut(e.self, tcp(22), "it has sent a password that closes")

	e.shut(e.self, udp(51820), "it has sent no password")
	e.opens("vpn", vpn)
	e.open(e.self, udp(51820), "it has sent a password")

	// The client's clock is a minute late.
	late := nth(3, e.to)
	secret, err := os.ReadFile(e.file("secrets/ssh-open"))
	must(e.t, err)
	key := []byte(strings.TrimSpace(string(secret)))
	e.datagram(late, 2000, otp.Datagram(key, late, time.Now().Add(-time.Minute)))
	e.d.waitFor("opened", "door=ssh", "source="+late.String()+" ")
	e.datagram(late, 2000, otp.Datagram(key, late, time.Now().Add(-3*time.Minute)))
	e.d.waitFor("reset", "door=ssh", "source="+late.String()+" ")

	if e.to.Is4() {
		e.behindNAT(open, byNAT)
	}
}

// behindNAT puts the client behind NAT with the example's public address. A password for
// that address opens the door; one for another does not.
func (e *example) behindNAT(without, with string) {
	public := netip.MustParseAddr("203.0.113.7")
	must(e.t, e.server.Do(func() error {
		return netlink.RouteAdd(&netlink.Route{Dst: ipNet(netip.PrefixFrom(public, 32)), Gw: client4.AsSlice()})
	}))
	server := e.server
	e.server = e.client
	e.nftScript(`table ip nat { chain postrouting { type nat hook postrouting priority srcnat; snat to 203.0.113.7; }; }`)
	e.server = server
	e.types(without)
	e.d.waitFor("reset", "door=ssh", "source="+public.String()+" ")
	e.shut(e.self, tcp(22), "its password was not for the address that the server sees")
	e.opens("ssh", with)
	e.d.waitFor("opened", "door=ssh", "source="+public.String()+" ")
	e.open(e.self, tcp(22), "its password was for the address that the server sees")
}

func (e *example) rolling() {
	e.serve(22)
	// The client's copies of the files. file() leads to the client's own copy of the
	// secret.
	e.copy(e.file("secrets/ssh-rolling"), e.file("home/secret"))
	text := strings.ReplaceAll(e.text, e.file("secrets/ssh-rolling"), e.file("home/secret"))
	must(e.t, os.WriteFile(e.file("home/server.hcl"), []byte(text), 0o600))
	e.run()
	e.shut(e.self, tcp(22), "it has not knocked")
	e.opens("ssh", e.knocks()[0])
	e.open(e.self, tcp(22), "it has knocked")

	// Use the next step, which nobody has used. The client may have used the step before.
	door := e.door("ssh")
	step := door.Methods[0].(*rolling.Rolling).Step
	waitForRoom(e.t, step)
	ahead, err := effective.Knocks(door, time.Now().Add(step))
	must(e.t, err)
	fast, second, old := nth(1, e.to), nth(2, e.to), nth(3, e.to)
	e.knock(fast, e.to, ahead...)
	e.open(fast, tcp(22), "its clock is off by a step")
	e.knock(second, e.to, ahead...)
	e.shut(second, tcp(22), "the knocks of another step than the present one are good once")
	overheard, err := effective.Knocks(door, time.Now().Add(-4*step))
	must(e.t, err)
	e.knock(old, e.to, overheard...)
	e.shut(old, tcp(22), "its knocks are of two minutes ago")
}

// waitForRoom waits until a step of the clock has begun a moment ago and does not end
// soon. Then a knock for this step arrives within it, and the daemon already knows the
// next step.
func waitForRoom(t testing.TB, step time.Duration) {
	t.Helper()
	const before, after = time.Second, 4 * time.Second
	eventually(t, fmt.Sprintf("a step of %s is under way", step), func() bool {
		now := time.Now()
		begun := now.Truncate(step)
		return now.Sub(begun) > before && begun.Add(step).Sub(now) > after
	})
}

func (e *example) oneTime() {
	e.serve(22)
	e.copy(e.file("state/ssh-sequences"), e.file("home/ssh-sequences"))
	e.run()
	e.shut(e.self, tcp(22), "it has not knocked")
	used, err := effective.Knocks(e.door("ssh"), time.Now())
	must(e.t, err)
	e.opens("ssh", e.knocks()[0])
	e.open(e.self, tcp(22), "it has knocked")
	e.knock(nth(1, e.to), e.to, used...)
	e.shut(nth(1, e.to), tcp(22), "the sequence was used before")

	// The client crosses out the line as the daemon did, and uses the next one.
	crossOut := e.typed()[slices.IndexFunc(e.typed(), func(s string) bool { return strings.HasPrefix(s, "sed") })]
	e.types(crossOut)
	ours, err := os.ReadFile(e.file("home/ssh-sequences"))
	must(e.t, err)
	theirs, err := os.ReadFile(e.file("state/ssh-sequences"))
	must(e.t, err)
	if string(ours) != string(theirs) {
		e.t.Errorf("the client's list is\n%.100s…, the daemon's\n%.100s…", ours, theirs)
	}
	e.closes("ssh", e.self)
	e.shut(e.self, tcp(22), "the door is closed")
	e.opens("ssh", e.knocks()[0])
	e.open(e.self, tcp(22), "it has knocked again, by the next sequence")
}

func (e *example) commands() {
	e.serve(22)
	logged := e.file("logged")
	must(e.t, os.WriteFile(e.file("bin/logger"), fmt.Appendf(nil, "#!/bin/sh\necho \"$*\" >>%s\n", logged), 0o755))
	e.run()
	backup, ssh := e.knocks()[0], e.knocks()[1]
	e.opens("backup", backup)
	eventually(e.t, "the command has been run", func() bool {
		_, err := os.Stat(e.file("run/backup-wanted"))
		return err == nil
	})
	e.shut(e.self, tcp(22), "it has knocked at another door")
	e.opens("ssh", ssh)
	e.open(e.self, tcp(22), "it has knocked")
	e.closes("ssh", e.self)
	want := fmt.Sprintf("--tag knockwall-ssh open for %[1]s, by 10243/tcp\n--tag knockwall-ssh closed for %[1]s\n", e.self)
	eventually(e.t, "what has happened is logged", func() bool {
		text, err := os.ReadFile(logged)
		return err == nil && string(text) == want
	})
}

// datagram sends a datagram from an address of the client to a port of the server.
func (e *example) datagram(from netip.Addr, port uint16, data []byte) {
	e.t.Helper()
	must(e.t, e.client.Do(func() error {
		fd, err := boundSocket(from, e.to, unix.SOCK_DGRAM)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, data, 0, sockaddr(e.to, port))
	}))
}

// copy copies a file to the client. Only its owner can read it.
func (e *example) copy(from, to string) {
	e.t.Helper()
	text, err := os.ReadFile(from)
	must(e.t, err)
	must(e.t, os.WriteFile(to, text, 0o600))
}
