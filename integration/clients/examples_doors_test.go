package clients

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/eventually"
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
	"fwknop":    (*example).fwknop,
	"keys":      (*example).keys,
}

// neighbours returns addresses of the client's network that no host has: two within one
// prefix of phone.hcl, and one outside.
func (e *example) neighbours() (one, two, outside netip.Addr) {
	return lab.Source(1, e.to), lab.Source(2, e.to), e.self
}

func (e *example) ssh() {
	e.ServeTCP(22)
	e.run()
	e.shut(e.self, lab.TCP(22), "it has not knocked")
	e.opens("ssh", e.knocks()[0])
	e.open(e.self, lab.TCP(22), "it has knocked")
	e.shut(lab.Source(1, e.to), lab.TCP(22), "another one has knocked")

	// A scan in ascending order reaches a trap before the knocks. The correct sequence
	// right after it opens nothing.
	steps := sequenceOf(e.door("ssh"))
	scanner := lab.Source(2, e.to)
	e.Knock(scanner, e.to, lab.TCP(steps[0].Number-1))
	e.d.WaitFor("trapped", "source="+scanner.String()+" ")
	e.Knock(scanner, e.to, steps...)
	e.shut(scanner, lab.TCP(22), "it was trapped")
}

// sequenceOf returns the sequence of a door.
func sequenceOf(d *ruleset.Door) []packet.Port {
	return d.Methods[0].(*fixed.Sequence).Sequences[0]
}

func (e *example) vpn() {
	e.ServeUDP(51820, e.to)
	e.run()
	e.shut(e.self, lab.UDP(51820), "it has not knocked")
	e.opens("vpn", e.knocks()[0])
	e.open(e.self, lab.UDP(51820), "it has knocked")
}

func (e *example) webAdmin() {
	e.ServeTCP(8443)
	e.ServeTCP(443)
	e.run()
	e.open(e.self, lab.TCP(443), "the rest of the server is for everybody")
	e.shut(e.self, lab.TCP(8443), "it has not knocked")
	opening, closing := e.knocks()[0], e.knocks()[1]
	e.opens("admin", opening)
	e.open(e.self, lab.TCP(8443), "it has knocked")
	e.types(closing)
	e.d.WaitFor("closed", "door=admin")
	e.shut(e.self, lab.TCP(8443), "it has knocked to close the door")

	// A computer whose IPv6 address has changed within its network.
	one, two, _ := e.neighbours()
	e.Knock(one, e.to, sequenceOf(e.door("admin"))...)
	eventually.True(e.t, "the door is open for it", func() bool { return e.d.Logged("opened", "door=admin") == 2 })
	e.open(one, lab.TCP(8443), "it has knocked")
	if e.to.Is6() {
		e.open(two, lab.TCP(8443), "somebody of its /64 has knocked")
	} else {
		e.shut(two, lab.TCP(8443), "another address has knocked")
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
	e.AddInside(80)
	e.LoadNft(fmt.Sprintf(dockersRules, "ip", lab.Inside.String()+":80", lab.Inside) +
		fmt.Sprintf(dockersRules, "ip6", "["+lab.Inside6.String()+"]:80", lab.Inside6))
	e.open(e.self, lab.TCP(8080), "there is no wall yet, and else this would test nothing")
	e.run()
	e.shut(e.self, lab.TCP(8080), "it has not knocked")
	e.opens("container", e.knocks()[0])
	e.open(e.self, lab.TCP(8080), "it has knocked")
	session, err := e.Dial(e.self, e.to, 8080, lab.Deadline)
	lab.Must(e.t, err)
	defer session.Close()
	e.closes("container", e.self)
	e.shut(e.self, lab.TCP(8080), "the door is closed again")
	lab.Must(e.t, lab.Exchange(session))
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
	e.ServeTCP(22)
	e.LoadNft(ufwsRules)
	e.run()
	e.opens("ssh", e.knocks()[0]) // no rule of ufw accepts the knocks
	e.shut(e.self, lab.TCP(22), "ufw does not allow it, whoever has knocked")
	e.LoadNft(`add rule inet ufw user-input tcp dport 22 accept`)
	e.open(e.self, lab.TCP(22), "it has knocked, and ufw allows it")
	e.shut(lab.Source(1, e.to), lab.TCP(22), "it has not knocked, though ufw allows it")
}

func (e *example) gateway() {
	e.ServeTCP(22)
	e.AddInside(22)
	gateway := e.to
	e.to = lab.Inside
	if gateway.Is6() {
		e.to = lab.Inside6
	}
	e.open(e.self, lab.TCP(22), "there is no wall yet, and else this would test nothing")
	e.run()
	e.shut(e.self, lab.TCP(22), "it has not knocked")
	if !e.Admits(e.self, gateway, 22) {
		e.t.Error("the gateway's own ssh is shut, too")
	}
	e.opens("inside", e.knocks()[0])
	e.open(e.self, lab.TCP(22), "it has knocked")
}

func (e *example) phone() {
	e.ServeTCP(22)
	e.run()
	one, two, outside := e.neighbours()
	steps := sequenceOf(e.door("phone"))
	if e.to.Is4() {
		// A carrier's address pool: each knock comes from another address.
		for i, step := range steps {
			e.Knock(lab.Source(10+i, e.to), e.to, step)
		}
		e.d.WaitFor("opened", "source=10.1.0.0/24")
		outside = lab.Source(1<<8, e.to) // the next /24
	} else {
		e.Knock(one, e.to, steps...)
		e.d.WaitFor("opened", "source=2001:db8:1::/64")
	}
	e.open(two, lab.TCP(22), "somebody of its prefix has knocked")
	e.shut(outside, lab.TCP(22), "nobody of its prefix has knocked")
	for _, command := range e.knocks() { // for IPv6
		e.opens("phone", command)
		e.open(e.self, lab.TCP(22), "it has knocked")
	}

	// The penalty applies to the whole prefix.
	e.closes("phone", one)
	e.Knock(one, e.to, lab.TCP(steps[0].Number-1))
	e.d.WaitFor("trapped", "door=phone")
	e.Knock(two, e.to, steps...)
	e.shut(two, lab.TCP(22), "a neighbour of it was trapped")
}

func (e *example) passwords() {
	e.ServeTCP(22)
	e.ServeUDP(51820, e.to)
	for _, name := range []string{"open", "close"} {
		e.copy(e.file("secrets/ssh-"+name), e.file("home/.ssh/server-"+name))
	}
	e.copy(e.file("credentials/vpn-open"), e.file("home/.ssh/vpn-open"))
	e.run()
	e.shut(e.self, lab.TCP(22), "it has sent no password")
	open, shut, byNAT, vpn := e.knocks()[0], e.knocks()[1], e.knocks()[2], e.knocks()[3]
	e.opens("ssh", open)
	e.open(e.self, lab.TCP(22), "it has sent a password")
	e.shut(lab.Source(1, e.to), lab.TCP(22), "somebody else has sent a password")
	e.types(shut)
	e.d.WaitFor("closed", "door=ssh")
	e.shut(e.self, lab.TCP(22), "it has sent a password that closes")

	e.shut(e.self, lab.UDP(51820), "it has sent no password")
	e.opens("vpn", vpn)
	e.open(e.self, lab.UDP(51820), "it has sent a password")

	// The client's clock is a minute late.
	late := lab.Source(3, e.to)
	secret, err := os.ReadFile(e.file("secrets/ssh-open"))
	lab.Must(e.t, err)
	key := []byte(strings.TrimSpace(string(secret)))
	e.datagram(late, 2000, otp.Datagram(key, late, time.Now().Add(-time.Minute)))
	e.d.WaitFor("opened", "door=ssh", "source="+late.String()+" ")
	e.datagram(late, 2000, otp.Datagram(key, late, time.Now().Add(-3*time.Minute)))
	e.d.WaitFor("reset", "door=ssh", "source="+late.String()+" ")

	if e.to.Is4() {
		e.behindNAT(open, byNAT)
	}
}

func (e *example) fwknop() {
	e.ServeTCP(22)
	e.run()
	e.shut(e.self, lab.TCP(22), "it has sent no datagram")
	e.hostsFile("alice", "", "")
	e.opens("ssh", e.knocks()[0])
	e.open(e.self, lab.TCP(22), "alice has sent a datagram")
	e.d.WaitFor("opened", "door=ssh", "person=alice")

	// Bob's datagram must name an address.
	phone := lab.Source(1, e.to)
	e.hostsFile("bob", "hmac = \"sha512\"\nuser = \"bob\"", `source = "seen"`)
	e.types(e.knocks()[0])
	e.d.WaitFor("reset", "door=ssh", "person=bob", "code=not-allowed")
	e.hostsFile("bob", "hmac = \"sha512\"\nuser = \"bob\"", "source = \""+phone.String()+"\"")
	e.types(e.knocks()[0])
	e.d.WaitFor("opened", "door=ssh", "person=bob", "source="+phone.String()+" ")
	e.open(phone, lab.TCP(22), "bob has named it")

	// The stock client of the comments.
	if e.to.Is4() {
		lab.NeedsProgram(e.t, "fwknop")
		e.closes("ssh", e.self)
		stanza := regexp.MustCompile(`(?m)^#   (\[server\]|[A-Z].*)$`).FindAllStringSubmatch(e.text, -1)
		var lines []string
		for _, m := range stanza {
			lines = append(lines, m[1])
		}
		rc := strings.NewReplacer("server.example.org", e.to.String(), "the line in alice.key", e.secret("alice.key"), "the line in alice.hmac", e.secret("alice.hmac")).
			Replace(strings.Join(lines, "\n") + "\n")
		lab.WriteFile(e.t, e.file("home/.fwknoprc"), rc, 0o600)
		e.opens("ssh", "fwknop -n server")
		e.open(e.self, lab.TCP(22), "alice has sent a datagram by fwknop")
	}
}

func (e *example) keys() {
	keygen := lab.NeedsProgram(e.t, "ssh-keygen")
	e.ServeTCP(22)
	e.ServeUDP(51820, e.to)
	said := func(arguments ...string) string {
		out, err := lab.Knockwall(append(arguments, "--config", e.path)...).Output()
		lab.Must(e.t, err)
		return string(out)
	}
	said("identity")
	// The lines of the comments, with keys.
	lines := regexp.MustCompile(`(?m)^#   (.*ssh-ed25519 )AAAA\.\.\. ((\w+)@\w+)$`).FindAllStringSubmatch(e.text, -1)
	var people strings.Builder
	for _, m := range lines {
		if out, err := exec.Command(keygen, "-q", "-t", "ed25519", "-N", "", "-C", m[2], "-f", e.file(m[3])).CombinedOutput(); err != nil {
			e.t.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
		public, err := os.ReadFile(e.file(m[3] + ".pub"))
		lab.Must(e.t, err)
		people.WriteString(strings.TrimSuffix(m[1], "ssh-ed25519 ") + string(public))
	}
	lab.WriteFile(e.t, e.file("people"), people.String(), 0o640)
	e.run()
	e.shut(e.self, lab.TCP(22), "it has not knocked")

	knock := "export SSH_AUTH_SOCK=; " + e.knocks()[0]
	join := func(door, person string) {
		e.copy(e.file(person), e.file("home/.ssh/id_ed25519"))
		lab.Must(e.t, os.RemoveAll(e.file("home/.config")))
		e.types("knockwall join --ssh " + said("invite", door, "--host", e.to.String()))
	}
	join("ssh", "alice")
	e.opens("ssh", knock)
	e.d.WaitFor("opened", "door=ssh", "person=alice@laptop")
	e.open(e.self, lab.TCP(22), "alice has knocked")
	e.shut(lab.Source(1, e.to), lab.TCP(22), "another one has knocked")

	// Alice's line goes, and the window with it.
	alice, rest, _ := strings.Cut(people.String(), "\n")
	lab.WriteFile(e.t, e.file("people"), "# "+alice+"\n"+rest, 0o640)
	e.RunOnServer("reload", "--control", e.d.Control)
	e.d.WaitFor("closed", "door=ssh", "person=alice@laptop", "code=no-longer")
	e.shut(e.self, lab.TCP(22), "alice is no longer listed")

	// Bob may open only the other door, and for ten minutes.
	join("ssh", "bob")
	e.types(knock)
	e.d.WaitFor("reset", "door=ssh", "person=bob@phone", "code=not-allowed")
	e.shut(e.self, lab.UDP(51820), "nobody has knocked at this door")
	join("vpn", "bob")
	e.opens("vpn", knock)
	e.d.WaitFor("opened", "door=vpn", "person=bob@phone", "window=10m")
	e.open(e.self, lab.UDP(51820), "bob has knocked")
}

// hostsFile writes a hosts file for a person with fwknop, with more lines in the blocks of
// fwknop and of the host.
func (e *example) hostsFile(person, more, host string) {
	e.t.Helper()
	lab.Must(e.t, os.MkdirAll(e.file("home/.config/knockwall"), 0o700))
	lab.WriteFile(e.t, e.file("home/.config/knockwall/hosts.hcl"), fmt.Sprintf("host \"*\" {\nfwknop {\nkey = %q\nhmac_key = %q\naccess = [22]\n%s\n}\n%s\n}\n",
		e.secret(person+".key"), e.secret(person+".hmac"), more, host), 0o600)
}

// secret returns the text of a secret of the daemon.
func (e *example) secret(name string) string {
	e.t.Helper()
	text, err := os.ReadFile(e.file("secrets/" + name))
	lab.Must(e.t, err)
	return strings.TrimSpace(string(text))
}

// behindNAT puts the client behind NAT with the example's public address. A password for
// that address opens the door; one for another does not.
func (e *example) behindNAT(without, with string) {
	public := netip.MustParseAddr("203.0.113.7")
	lab.Must(e.t, e.Server.Do(func() error {
		return netlink.RouteAdd(&netlink.Route{Dst: lab.IPNet(netip.PrefixFrom(public, 32)), Gw: lab.Client4.AsSlice()})
	}))
	server := e.Server
	e.Server = e.Client
	e.LoadNft(`table ip nat { chain postrouting { type nat hook postrouting priority srcnat; snat to 203.0.113.7; }; }`)
	e.Server = server
	e.types(without)
	e.d.WaitFor("reset", "door=ssh", "source="+public.String()+" ")
	e.shut(e.self, lab.TCP(22), "its password was not for the address that the server sees")
	e.opens("ssh", with)
	e.d.WaitFor("opened", "door=ssh", "source="+public.String()+" ")
	e.open(e.self, lab.TCP(22), "its password was for the address that the server sees")
}

func (e *example) rolling() {
	e.ServeTCP(22)
	// The client's copies of the files. file() leads to the client's own copy of the
	// secret.
	e.copy(e.file("secrets/ssh-rolling"), e.file("home/secret"))
	text := strings.ReplaceAll(e.text, e.file("secrets/ssh-rolling"), e.file("home/secret"))
	lab.Must(e.t, os.WriteFile(e.file("home/server.hcl"), []byte(text), 0o600))
	e.run()
	e.shut(e.self, lab.TCP(22), "it has not knocked")
	e.opens("ssh", e.knocks()[0])
	e.open(e.self, lab.TCP(22), "it has knocked")

	// Use the next step, which nobody has used. The client may have used the step before.
	door := e.door("ssh")
	step := door.Methods[0].(*rolling.Rolling).Step
	waitForRoom(e.t, step)
	ahead, err := effective.Knocks(door, time.Now().Add(step))
	lab.Must(e.t, err)
	fast, second, old := lab.Source(1, e.to), lab.Source(2, e.to), lab.Source(3, e.to)
	e.Knock(fast, e.to, ahead...)
	e.open(fast, lab.TCP(22), "its clock is off by a step")
	e.Knock(second, e.to, ahead...)
	e.shut(second, lab.TCP(22), "the knocks of another step than the present one are good once")
	overheard, err := effective.Knocks(door, time.Now().Add(-4*step))
	lab.Must(e.t, err)
	e.Knock(old, e.to, overheard...)
	e.shut(old, lab.TCP(22), "its knocks are of two minutes ago")
}

// waitForRoom waits until a step of the clock has begun a moment ago and does not end
// soon. Then a knock for this step arrives within it, and the daemon already knows the
// next step.
func waitForRoom(t testing.TB, step time.Duration) {
	t.Helper()
	const before, after = time.Second, 4 * time.Second
	eventually.True(t, fmt.Sprintf("a step of %s is under way", step), func() bool {
		now := time.Now()
		begun := now.Truncate(step)
		return now.Sub(begun) > before && begun.Add(step).Sub(now) > after
	})
}

func (e *example) oneTime() {
	e.ServeTCP(22)
	e.copy(e.file("state/ssh-sequences"), e.file("home/ssh-sequences"))
	e.run()
	e.shut(e.self, lab.TCP(22), "it has not knocked")
	used, err := effective.Knocks(e.door("ssh"), time.Now())
	lab.Must(e.t, err)
	e.opens("ssh", e.knocks()[0])
	e.open(e.self, lab.TCP(22), "it has knocked")
	e.Knock(lab.Source(1, e.to), e.to, used...)
	e.shut(lab.Source(1, e.to), lab.TCP(22), "the sequence was used before")

	// The client crosses out the line as the daemon did, and uses the next one.
	crossOut := e.typed()[slices.IndexFunc(e.typed(), func(s string) bool { return strings.HasPrefix(s, "sed") })]
	e.types(crossOut)
	ours, err := os.ReadFile(e.file("home/ssh-sequences"))
	lab.Must(e.t, err)
	theirs, err := os.ReadFile(e.file("state/ssh-sequences"))
	lab.Must(e.t, err)
	if string(ours) != string(theirs) {
		e.t.Errorf("the client's list is\n%.100s…, the daemon's\n%.100s…", ours, theirs)
	}
	e.closes("ssh", e.self)
	e.shut(e.self, lab.TCP(22), "the door is closed")
	e.opens("ssh", e.knocks()[0])
	e.open(e.self, lab.TCP(22), "it has knocked again, by the next sequence")
}

func (e *example) commands() {
	e.ServeTCP(22)
	logged := e.file("logged")
	lab.Must(e.t, os.WriteFile(e.file("bin/logger"), fmt.Appendf(nil, "#!/bin/sh\necho \"$*\" >>%s\n", logged), 0o755))
	e.run()
	backup, ssh := e.knocks()[0], e.knocks()[1]
	e.opens("backup", backup)
	eventually.True(e.t, "the command has been run", func() bool {
		_, err := os.Stat(e.file("run/run-backup"))
		return err == nil
	})
	e.shut(e.self, lab.TCP(22), "it has knocked at another door")
	e.opens("ssh", ssh)
	e.open(e.self, lab.TCP(22), "it has knocked")
	e.closes("ssh", e.self)
	want := fmt.Sprintf("--tag knockwall-ssh open for %[1]s, by 10243/tcp\n--tag knockwall-ssh closed for %[1]s\n", e.self)
	eventually.True(e.t, "what has happened is logged", func() bool {
		text, err := os.ReadFile(logged)
		return err == nil && string(text) == want
	})
}

// datagram sends a datagram from an address of the client to a port of the server.
func (e *example) datagram(from netip.Addr, port uint16, data []byte) {
	e.t.Helper()
	lab.Must(e.t, e.Client.Do(func() error {
		fd, err := lab.BoundSocket(from, e.to, unix.SOCK_DGRAM)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, data, 0, lab.Sockaddr(e.to, port))
	}))
}

// copy copies a file to the client. Only its owner can read it.
func (e *example) copy(from, to string) {
	e.t.Helper()
	text, err := os.ReadFile(from)
	lab.Must(e.t, err)
	lab.Must(e.t, os.WriteFile(to, text, 0o600))
}
