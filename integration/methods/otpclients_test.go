package methods

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

// pknock sends a one-time password as knock.sh of xt_pknock does, with programs that every
// system has. Its variables are SECRET in hex, SOURCE as bytes for printf, HOST, PORT, and
// what follows the digits.
const pknock = `
m=$(($(date +%s) / 60))
minute=$(printf '\\x%02x\\x%02x\\x%02x\\x%02x' $((m & 255)) $((m >> 8 & 255)) $((m >> 16 & 255)) $((m >> 24 & 255)))
digits=$(printf "$SOURCE$minute" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$SECRET")
send() { printf "${digits##*= }$LAST"; }
`

// Passwords that other programs compute and send open and close the door, and so do those
// that the commands knock and connect send.
func TestPasswordsOfManyClients(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"openssl", "nc"} {
		lab.NeedsProgram(t, program)
	}
	bash, ours := lab.NeedsProgram(t, "bash"), lab.BinaryPath()
	l := lab.New(t)
	keys := map[string]string{}
	for name, key := range map[string]string{"open": otpOpens, "shut": otpShuts} {
		keys[name] = filepath.Join(l.Folder, name+".key")
		lab.Must(t, os.WriteFile(keys[name], []byte(key+"\n"), 0o600))
	}
	clients := []struct {
		name   string
		script string
		stays  bool // the command can open and cannot close
	}{
		{"bash, with a newline", `LAST='\n'` + pknock + `send >"/dev/udp/$HOST/$PORT"`, false},
		{"bash, with a NUL", `LAST='\0'` + pknock + `send >"/dev/udp/$HOST/$PORT"`, false},
		{"nc", `LAST='\n'` + pknock + `send | nc -u -w 1 -N "$HOST" "$PORT"`, false},
		{"knock", `"$OURS" knock --otp-file "$KEY" "$HOST" "$PORT"`, false},
		{"knock from a named source", `"$OURS" knock --otp-file "$KEY" --otp-source "$ADDRESS" "$HOST" "$PORT/udp"`, false},
		{"connect", `echo ping | "$OURS" connect --otp-file "$KEY" "$HOST" "$DOOR" "$PORT" | grep -q ping`, true},
	}
	var rules strings.Builder
	for i := range clients {
		// All doors have the same secrets. A password that was used at one door is still
		// good at another.
		rules.WriteString(otpDoor(fmt.Sprintf("d%d", i), 22+i, 2000+i, patient))
		l.ServeTCP(22 + i)
	}
	d := l.Run(rules.String())
	for i, c := range clients {
		for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
			t.Run(fmt.Sprintf("%s to %s", c.name, server), func(t *testing.T) {
				t.Parallel()
				source, door := lab.Client4, 22+i
				if server.Is6() {
					source = lab.Client6
				}
				send := func(name, key string) {
					t.Helper()
					ctx, cancel := context.WithTimeout(context.Background(), lab.Deadline)
					defer cancel()
					cmd := exec.CommandContext(ctx, bash, "-c", c.script)
					var bytes strings.Builder
					for _, b := range source.AsSlice() {
						fmt.Fprintf(&bytes, `\x%02x`, b)
					}
					cmd.Env = append(os.Environ(), "SECRET="+hex.EncodeToString([]byte(key)), "SOURCE="+bytes.String(), "ADDRESS="+source.String(),
						"KEY="+keys[name], "OURS="+ours, "HOST="+server.String(), fmt.Sprintf("PORT=%d", 2000+i), fmt.Sprintf("DOOR=%d", door))
					var said lab.Output
					cmd.Stdout, cmd.Stderr = &said, &said
					lab.Must(t, lab.StartOn(l.Client, cmd))
					if err := cmd.Wait(); err != nil {
						t.Fatalf("%s: %v\n%s", c.script, err, &said)
					}
				}
				told := []string{fmt.Sprintf("door=d%d", i), "source=" + source.String() + " "}
				if !c.stays && l.AdmitsAtOnce(source, server, door) {
					t.Fatal("admitted before the password")
				}
				send("open", otpOpens)
				d.WaitFor(append(told, "opened")...)
				if !l.Admits(source, server, door) {
					t.Fatal("refused after the password")
				}
				if l.AdmitsAtOnce(lab.Source(1, server), server, door) {
					t.Error("admitted with the password of another address")
				}
				if c.stays {
					return
				}
				send("shut", otpShuts)
				d.WaitFor(append(told, "closed")...)
				if l.AdmitsAtOnce(source, server, door) {
					t.Error("admitted after the password that closes")
				}
			})
		}
	}
}
