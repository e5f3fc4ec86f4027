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
	"github.com/knockwall/knockwall/internal/packet"
)

// fwknop is Debian's fwknopd with Debian's configuration, which uses iptables. The only
// change: it reads its packets from a UDP socket, which is its fastest mode. fwknop's client
// makes every packet.
type fwknop struct {
	binary, clientBinary, iptables string
	folder                         string
	key, hmac                      string
	*daemon
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
	f.folder, f.key, f.hmac = l.folder, newKey(32), newKey(64)
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

func newKey(size int) string {
	b := make([]byte, size)
	rand.Read(b)
	return base64.StdEncoding.EncodeToString(b)
}

func (f *fwknop) stop() { f.kill() }

// knocks makes the client write its packet to a file instead of sending it, so that the
// measurement does not include the start of the client.
func (f *fwknop) knocks(from netip.Addr) ([]forge.Segment, error) {
	path := filepath.Join(f.folder, "packet")
	cmd := exec.Command(f.clientBinary, "--test", "--save-packet", path, "--no-rc-file",
		"--access", door.Protocol.String()+"/"+fmt.Sprint(door.Number), "--allow-ip", from.String(), "--destination", server.String(),
		"--use-hmac", "--key-base64-rijndael", f.key, "--key-base64-hmac", f.hmac)
	cmd.Env = append(os.Environ(), "HOME="+f.folder) // the client saves its last arguments there
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", f.clientBinary, err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return []forge.Segment{{From: from, To: server, SourcePort: 40000, Port: spa, Payload: bytes.TrimSpace(b)}}, nil
}

var spa = packet.Port{Number: 62201, Protocol: packet.UDP}

// noise has the length of one of the client's packets.
func (f *fwknop) noise() noise { return noise{port: spa, payload: 204} }
