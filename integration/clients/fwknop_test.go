package clients

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

// The keys of a person in these tests, in base64.
const (
	fwknopKey  = "9uBaXTpu7gZxzxJWCBcc2jajIavpXPA847GX1ZYYGrY="
	fwknopHMAC = "TPZ3jmyNthUPxqzFl0NIQmlMZfa+ZSSiJZS3F6f6xhS/+39iK2GSvhGKOVUd6iSV+5GoiTT1dg+Pcrps3bC9oQ=="
)

// fwknopHome makes a home folder for fwknop's client, with a stanza "work" for the server.
func fwknopHome(l *lab.Lab, key, hmac, more string) string {
	l.T.Helper()
	home := filepath.Join(l.Folder, "home")
	lab.Must(l.T, os.MkdirAll(home, 0o700))
	lab.WriteFile(l.T, filepath.Join(home, ".fwknoprc"), "[default]\nUSE_HMAC Y\n\n[work]\nSPA_SERVER "+lab.Server4.String()+
		"\nACCESS tcp/22\nALLOW_IP source\nSPOOF_USER alice\nKEY_BASE64 "+key+"\nHMAC_KEY_BASE64 "+hmac+"\n"+more, 0o600)
	return home
}

// fwknop runs fwknop's client on the client.
func fwknop(l *lab.Lab, home string, arguments ...string) {
	l.T.Helper()
	program := lab.NeedsProgram(l.T, "fwknop")
	arguments = append([]string{"HOME=" + home, program, "-n", "work"}, arguments...)
	if out, err := l.RunOnClient("env", arguments...); err != nil {
		l.T.Fatalf("%s: %v\n%s", strings.Join(arguments, " "), err, out)
	}
}

// unsent returns a datagram that fwknop's client makes and does not send.
func unsent(l *lab.Lab, home string, arguments ...string) string {
	l.T.Helper()
	path := filepath.Join(l.Folder, "packet")
	_ = os.Remove(path)
	fwknop(l, home, append([]string{"--test", "-B", path}, arguments...)...)
	datagram, err := os.ReadFile(path)
	lab.Must(l.T, err)
	return string(bytes.TrimSpace(datagram))
}

// fwknopDoor returns the rules of a door for alice, with more lines in her block.
func fwknopDoor(more string) string {
	return `
door "ssh" {
  ports  = [22]
  window = "1m"
  fwknop "alice" {
    key      = "` + fwknopKey + `"
    hmac_key = "` + fwknopHMAC + `"
    ` + more + `
  }
  fwknop "bob" {
    key      = "Ym9iIGtub2NrcyBoZXJl"
    hmac_key = "YW5kIG5vdCBieSBhbGljZSdzIGtleQ=="
    hmac     = "sha512"
  }
}`
}

// The client of the distribution opens the door, as it is configured for fwknopd. A copy of
// its datagram opens nothing, from whatever address, and neither does one with a changed bit
// that base64 does not use.
func TestFwknopsClientOpensADoorOnce(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "fwknop")
	l := lab.New(t)
	l.ServeTCP(22)
	d := l.Run(fwknopDoor(`user = "alice"`))
	home := fwknopHome(l, fwknopKey, fwknopHMAC, "")
	if l.AdmitsAtOnce(lab.Client4, lab.Server4, 22) {
		t.Error("admitted without a datagram")
	}
	fwknop(l, home)
	d.WaitFor("opened", "door=ssh", "source="+lab.Client4.String()+" ", "person=alice", "code=fwknop")
	if !l.Admits(lab.Client4, lab.Server4, 22) {
		t.Error("kept out after the datagram")
	}

	datagram := unsent(l, home)
	first, thief := lab.Source(1, lab.Server4), lab.Source(2, lab.Server4)
	l.SendDatagram(first, lab.Server4, 62201, datagram)
	d.WaitFor("opened", "source="+first.String()+" ")
	for _, source := range []netip.Addr{first, thief} {
		l.SendDatagram(source, lab.Server4, 62201, datagram)
		d.WaitFor("replayed", "source="+source.String()+" ", "person=alice")
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	last := len(datagram) - 1
	spare := datagram[:last] + string(alphabet[strings.IndexByte(alphabet, datagram[last])^1])
	l.SendDatagram(thief, lab.Server4, 62201, spare)
	d.WaitFor("reset", "source="+thief.String()+" ", "code=not-fwknop")
	if l.AdmitsAtOnce(thief, lab.Server4, 22) {
		t.Error("admitted by a copy")
	}
}

// There is no pause between datagram and SYN, and no SYN has to be sent again.
func TestTheFirstSYNAfterFwknopIsAdmitted(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "fwknop")
	l := lab.New(t)
	l.ServeTCP(22)
	l.Run(fwknopDoor(""))
	home := fwknopHome(l, fwknopKey, fwknopHMAC, "")
	for n := range 50 {
		source, datagram := lab.Source(n, lab.Server4), unsent(l, home)
		if err := l.OnFirstSYNAfter(source, lab.Server4, 22, func() error {
			return lab.SendData(source, lab.Server4, 62201, datagram)
		}); err != nil {
			t.Fatalf("client %d of 50: %v", n+1, err)
		}
	}
}

// The door opens for the address in the datagram, and for as long as the client asks for, up
// to the window of the door.
func TestADatagramOfFwknopNamesAddressAndTime(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "fwknop")
	l := lab.New(t)
	l.ServeTCP(22)
	d := l.Run(fwknopDoor(`source = "signed"`))
	home := fwknopHome(l, fwknopKey, fwknopHMAC, "")
	fwknop(l, home)
	d.WaitFor("reset", "person=alice", "code=not-allowed", "the datagram names no address")
	for n, test := range []struct{ seconds, window string }{{"20", "window=20s"}, {"3600", "window=1m"}} {
		inside := lab.Source(n, lab.Server4)
		fwknop(l, home, "-a", inside.String(), "-f", test.seconds)
		d.WaitFor("opened", "source="+inside.String()+" ", "person=alice", test.window)
		if !l.Admits(inside, lab.Server4, 22) {
			t.Errorf("%s is kept out", inside)
		}
	}
	if l.AdmitsAtOnce(lab.Client4, lab.Server4, 22) {
		t.Error("the sender is admitted, whom no datagram names")
	}
}

// What a datagram asks for and a door does not do is refused with its reason.
func TestWhatFwknopAsksForInVainIsTold(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "fwknop")
	l := lab.New(t)
	l.ServeTCP(22)
	d := l.Run(fwknopDoor(`user = "alice"`))
	home := fwknopHome(l, fwknopKey, fwknopHMAC, "")
	n := 0
	for reason, arguments := range map[string][]string{
		"the datagram asks for 23/tcp, which this door does not guard": {"-A", "tcp/23"},
		"the datagram asks for NAT to 10.1.2.3 port 22":                {"-N", "10.1.2.3,22"},
		"the client's clock is 10m":                                    {"--time-offset-minus", "10M"},
		`the datagram names the user \"mallory\", and not \"alice\"`:   {"-U", "mallory"},
	} {
		n++
		source := lab.Source(n, lab.Server4) // events of one source are summed
		l.SendDatagram(source, lab.Server4, 62201, unsent(l, home, arguments...))
		d.WaitFor("reset", "source="+source.String()+" ", "person=alice", reason)
		if l.AdmitsAtOnce(source, lab.Server4, 22) {
			t.Errorf("admitted, although %s", reason)
		}
	}
}

// The kernel gives the daemon no datagrams with another size or first byte.
func TestTheKernelDropsWhatFwknopCannotSend(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "fwknop")
	l := lab.New(t)
	l.ServeTCP(22)
	d := l.Run(fwknopDoor(""))
	home := fwknopHome(l, fwknopKey, fwknopHMAC, "")
	good := unsent(l, home)
	was := d.Status().Doors[0].Counters
	for _, data := range []string{"", "x", good + "x", good[1:], good + good, "A" + good[1:], "U2FsdGVkX1" + good} {
		l.SendDatagram(lab.Client4, lab.Server4, 62201, data)
	}
	// The daemon handles datagrams in order.
	l.SendDatagram(lab.Client4, lab.Server4, 62201, good)
	d.WaitFor("opened", "source="+lab.Client4.String()+" ")
	if now := d.Status().Doors[0].Counters; now.Resets != was.Resets || now.Knocks != was.Knocks+1 {
		t.Errorf("the daemon has heard %+v, and before %+v", now, was)
	}
}

// `knockwall knock` sends a datagram of fwknop, as the hosts file says, by IPv6, too.
func TestKnockSendsADatagramOfFwknop(t *testing.T) {
	t.Parallel()
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		l := lab.New(t)
		l.ServeTCP(22)
		d := l.Run(fwknopDoor(`user = "alice"`))
		lab.Must(t, os.MkdirAll(filepath.Join(l.Folder, "knockwall"), 0o700))
		lab.WriteFile(t, filepath.Join(l.Folder, "knockwall", "hosts.hcl"), fmt.Sprintf(`host "work" {
  address = %q
  fwknop {
    key      = %q
    hmac_key = %q
    user     = "alice"
    access   = [22]
    timeout  = "10s"
  }
}
`, server, fwknopKey, fwknopHMAC), 0o600)
		if out, err := l.RunOnClient("env", lab.EndAtOnce, "XDG_CONFIG_HOME="+l.Folder, lab.BinaryPath(), "knock", "work"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		d.WaitFor("opened", "person=alice", "window=10s")
		if !l.Admits(selfTowards(server), server, 22) {
			t.Errorf("kept out of %s", server)
		}
	}
}

// A host that had fwknopd is imported with its keys. The client needs no change, whether its
// key is in base64 or a passphrase.
func TestFwknopdsPeopleAreImported(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "fwknop")
	l := lab.New(t)
	l.ServeTCP(22)
	folder := filepath.Join(l.Folder, "fwknop")
	lab.Must(t, os.MkdirAll(folder, 0o700))
	lab.WriteFile(t, filepath.Join(folder, "access.conf"), "SOURCE ANY\nOPEN_PORTS tcp/22\nREQUIRE_USERNAME alice\nFW_ACCESS_TIMEOUT 20\nKEY_BASE64 "+fwknopKey+
		"\nHMAC_KEY_BASE64 "+fwknopHMAC+"\n\nSOURCE: ANY;\nOPEN_PORTS: tcp/22;\nREQUIRE_USERNAME: bob;\nFW_ACCESS_TIMEOUT: 20;\nKEY: bobs passphrase;\nHMAC_KEY: bobs other passphrase;\n"+
		"HMAC_DIGEST_TYPE: SHA512;\n", 0o600)
	lab.WriteFile(t, filepath.Join(folder, "fwknopd.conf"), "PCAP_FILTER udp port 5000;\n", 0o600)
	imported := lab.Knockwall("import", "--secrets", filepath.Join(l.Folder, "secrets"), filepath.Join(folder, "access.conf"))
	imported.Env = quickEnd()
	rules, err := imported.Output()
	lab.Must(t, err)
	d := l.RunFile(l.WriteRules(string(rules)))
	home := fwknopHome(l, fwknopKey, fwknopHMAC, "SPA_SERVER_PORT 5000\n")
	fwknop(l, home, "-a", lab.Source(1, lab.Server4).String())
	d.WaitFor("opened", "door=ssh", "person=alice", "source="+lab.Source(1, lab.Server4).String()+" ", "window=20s")
	program := lab.NeedsProgram(t, "fwknop")
	if out, err := l.RunOnClient("env", "HOME="+home, program, "--no-rc-file", "--no-save-args", "-A", "tcp/22", "-a", lab.Source(2, lab.Server4).String(), "-D", lab.Server4.String(), "-p", "5000",
		"-U", "bob", "--key-rijndael", "bobs passphrase", "--key-hmac", "bobs other passphrase", "--use-hmac", "--hmac-digest-type", "sha512"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	d.WaitFor("opened", "door=ssh", "person=bob", "source="+lab.Source(2, lab.Server4).String()+" ")
	for n := 1; n <= 2; n++ {
		if !l.Admits(lab.Source(n, lab.Server4), lab.Server4, 22) {
			t.Errorf("%s is kept out", lab.Source(n, lab.Server4))
		}
	}
}
