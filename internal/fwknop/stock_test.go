//go:build unix

package fwknop_test

import (
	"net"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/knockwall/knockwall/internal/fwknop"
)

// The client of the distribution sends a datagram of each kind, and of each mode of AES.
func TestTheStockClientIsUnderstood(t *testing.T) {
	client, err := exec.LookPath("fwknop")
	if err != nil {
		t.Skip("no fwknop: only datagrams that it made before are read")
	}
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	port := strconv.Itoa(socket.LocalAddr().(*net.UDPAddr).Port)
	send := func(kind fwknop.HMAC, more ...string) {
		t.Helper()
		cmd := exec.Command(client, append([]string{
			"--no-rc-file", "--no-save-args", "-A", "tcp/22", "-a", "192.0.2.7", "-D", "127.0.0.1", "-p", port, "-U", "alice",
			"--use-hmac", "--key-base64-rijndael", cipherKey, "--key-base64-hmac", hmacKey, "--hmac-digest-type", kind.String(),
		}, more...)...)
		cmd.Env = []string{"HOME=" + t.TempDir()}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, out)
		}
		buffer := make([]byte, 65536)
		_ = socket.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := socket.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		r, _, err := fwknop.NewReader(keys(t, kind)).Read(buffer[:n])
		if err != nil || r.User != "alice" || time.Since(r.Time).Abs() > time.Minute {
			t.Errorf("%s %q: %+v, %v", kind, more, r, err)
		}
	}
	for kind := fwknop.SHA256; kind <= fwknop.SHA3x512; kind++ {
		send(kind)
	}
	for _, mode := range []string{"CBC", "CTR", "OFB", "CFB", "ECB"} {
		send(fwknop.SHA256, "-M", mode)
	}
}
