package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/knockwall/knockwall/internal/forge"
	wire "github.com/knockwall/knockwall/internal/fwknop"
	"github.com/knockwall/knockwall/internal/packet"
)

// fwknop is Debian's fwknopd with Debian's configuration, which uses iptables. The only
// change: it reads its packets from a UDP socket, which is its fastest mode.
type fwknop struct {
	binary, iptables string
	*stockClient
	*daemon
}

// stockClient is Debian's fwknop client, which makes every packet.
type stockClient struct {
	binary    string
	ours      bool // floods get past the rules by which knockwall drops most of them
	folder    string
	key, hmac string
}

func (f *fwknop) name() string { return "fwknopd" }

func (f *fwknop) start(l *lab) (err error) {
	for _, rule := range [][]string{
		{"-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT"},
		{"-A", "INPUT", "-p", "tcp", "--dport", fmt.Sprint(door.Number), "-j", "DROP"},
	} {
		if err := run(l, "", f.iptables, rule...); err != nil {
			return err
		}
	}
	f.prepare(l.folder)
	config, access := filepath.Join(l.folder, "fwknopd.conf"), filepath.Join(l.folder, "access.conf")
	state := filepath.Join(l.folder, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		return err
	}
	for path, text := range map[string]string{
		config: fmt.Sprintf("PCAP_INTF %s;\nFWKNOP_RUN_DIR %s;\nFWKNOP_CONF_DIR %s;\nENABLE_UDP_SERVER Y;\n", l.serverLink, state, l.folder),
		access: fmt.Sprintf("SOURCE ANY\nKEY_BASE64 %s\nHMAC_KEY_BASE64 %s\nFW_ACCESS_TIMEOUT %d\n", f.key, f.hmac, int(l.window.Seconds())),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	f.daemon, err = launch(l, exec.Command(f.binary, "--foreground", "--config-file", config, "--access-file", access))
	return err
}

// prepare makes the keys of the client, whose files are in the folder.
func (c *stockClient) prepare(folder string) {
	c.folder, c.key, c.hmac = folder, newKey(32), newKey(64)
}

func newKey(size int) string {
	b := make([]byte, size)
	rand.Read(b)
	return base64.StdEncoding.EncodeToString(b)
}

func (f *fwknop) stop() { f.kill() }

// knocks makes the client write its packet to a file instead of sending it, so that the
// measurement does not include the start of the client.
func (c *stockClient) knocks(from netip.Addr) ([]forge.Segment, error) {
	path := filepath.Join(c.folder, "packet")
	cmd := exec.Command(c.binary, "--test", "--save-packet", path, "--no-rc-file",
		"--access", door.Protocol.String()+"/"+fmt.Sprint(door.Number), "--allow-ip", from.String(), "--destination", server.String(),
		"--use-hmac", "--key-base64-rijndael", c.key, "--key-base64-hmac", c.hmac)
	cmd.Env = append(os.Environ(), "HOME="+c.folder) // the client saves its last arguments there
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", c.binary, err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return []forge.Segment{{From: from, To: server, SourcePort: 40000, Port: spaPort, Payload: bytes.TrimSpace(b)}}, nil
}

// spaPort is the port of fwknop's packets, and of signed knocks.
var spaPort = packet.Port{Number: 62201, Protocol: packet.UDP}

// noise has the length of one of the client's packets.
func (c *stockClient) noise() (noise, error) {
	const length = 204
	n := noise{port: spaPort, payload: length, note: "garbage SPA"}
	for i := 0; c.ours && i < manyDatagrams; i++ {
		n.data = append(n.data, []byte(string(wire.FirstBytes[i%len(wire.FirstBytes)])+newKey(length)[:length-1]))
	}
	return n, nil
}

// rules are those of a host that has taken over from fwknopd.
func (c *stockClient) rules(folder string) (wall, door string, err error) {
	c.prepare(folder)
	return "", fmt.Sprintf("  fwknop \"client\" {\n    key      = %q\n    hmac_key = %q\n  }\n", c.key, c.hmac), nil
}
