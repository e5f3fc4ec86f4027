package integration

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/knockwall/knockwall/internal/doctor"
)

// boot ends the daemon and removes the wall, as a reboot does.
func (d *daemon) boot() {
	d.lab.t.Helper()
	down := knockwall("down", "--control", d.control)
	must(d.lab.t, d.lab.server.Do(down.Run))
	d.ended()
}

// passwordOfNothing returns the password that an empty key makes.
func passwordOfNothing() string {
	sum := hmac.New(sha256.New, nil)
	sum.Write(binary.LittleEndian.AppendUint32(client4.AsSlice(), uint32(thisMinute())))
	return hex.EncodeToString(sum.Sum(nil)) + "\n"
}

// If rule files cannot be used, or their secrets and lists are gone, the daemon starts
// with the last rules in force. They admit nobody who should not be admitted. When the
// missing files are back, they admit all who should be.
func TestTheLastRulesInForceStandWhenTheFilesCannotBeUsed(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for _, port := range []int{22, 23, 24} {
		l.serve(port)
	}
	secret, list := filepath.Join(l.folder, "secret"), filepath.Join(l.folder, "list")
	there := func() {
		must(t, os.WriteFile(secret, []byte(otpOpens), 0o600))
		must(t, os.WriteFile(list, []byte("5227,911,30411\n"), 0o600))
	}
	there()
	rules := survivalRules("", "10m") + `
door "password" {
  ports = [23]
  otp {
    port        = "2000/udp"
    open_secret = file("` + secret + `")
    skew        = "1m"
  }
}
door "list" {
  ports              = [24]
  one_time_sequences = "` + list + `"
}
`
	l.run(rules).boot()
	if !l.letsIn(client4, server4, 22) {
		t.Fatal("the wall stands after it was taken down")
	}

	must(t, os.Remove(secret))
	must(t, os.Remove(list))
	d := l.run(rules + `door "web" {`)
	for _, port := range []int{22, 23, 24} {
		if l.admits(client4, server4, port) {
			t.Errorf("strangers get in at the port %d", port)
		}
	}
	s := d.status()
	if len(s.Findings) == 0 || s.Findings[0].Check != "rules" || !strings.Contains(s.Findings[0].Problem, "rules.hcl line ") || !s.FilesDiffer {
		t.Errorf("the status has %+v, and that the files differ: %t", s.Findings, s.FilesDiffer)
	}
	if left := s.Doors[2].SequencesLeft; left != nil {
		t.Errorf("of a list that is gone, %d are said to be left", *left)
	}
	l.sendData(client4, server4, 2000, passwordOfNothing())
	l.knock(client4, server4, tcp(5227), tcp(911), tcp(30411))
	for _, port := range []int{23, 24} {
		if l.admits(client4, server4, port) {
			t.Errorf("somebody gets in at the port %d, whose secret is gone", port)
		}
	}
	l.enter(nth(1, server4), server4)

	// The missing files are back, and the rule files are as before.
	l.rules(rules)
	there()
	d.waitFor("the rule files can be used again")
	ofRules := func(f doctor.Finding) bool { return f.Check == "rules" }
	if s := d.status(); slices.ContainsFunc(s.Findings, ofRules) || s.FilesDiffer {
		t.Errorf("the status still has %+v, and that the files differ: %t", s.Findings, s.FilesDiffer)
	}
	must(t, l.client.Do(l.sending(client4, server4, 2000)))
	if !l.letsIn(client4, server4, 23) {
		t.Error("the password does not open")
	}
	l.knock(client4, server4, tcp(5227), tcp(911), tcp(30411))
	if !l.letsIn(client4, server4, 24) {
		t.Error("the list does not open")
	}
	if b, err := os.ReadFile(list); err != nil || string(b) != "#227,911,30411\n" {
		t.Errorf("the list is %q, %v", b, err)
	}

	// Without kept rules the start fails, and the wall stays as it is.
	d.end(syscall.SIGKILL)
	must(t, os.RemoveAll(d.control+".rules"))
	d = l.launch(`door "web" {`)
	var failed *exec.ExitError
	if err := d.ended(); !errors.As(err, &failed) || failed.ExitCode() != 2 {
		t.Errorf("with no rules kept run ends with %v", err)
	}
	if l.admits(nth(2, server4), server4, 22) {
		t.Error("the wall that stood is gone")
	}
}

// A machine with unreadable rule files boots with the last rules in force, and reports
// that.
func TestBootWithUnreadableRulesUnderSystemd(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	m := l.newPackaged(survivalRules("", "10m"))
	m.does("systemctl", "start", "knockwall.service")
	m.does("knockwall", "down")
	cursor := m.cursor()
	m.does("chmod", "600", ruleFile)
	m.does("chown", "root:root", ruleFile)
	m.does("systemctl", "start", "knockwall.service")
	l.checkGuards("with rule files that the daemon cannot read", 1)
	if out := m.does("knockwall", "status"); !strings.Contains(out, "degraded: ") || !strings.Contains(out, "permission denied") {
		t.Errorf("the status is %s", out)
	}
	if out := m.does("journalctl", "--unit=knockwall", "--after-cursor="+cursor, "--priority=err", "--output=cat"); !strings.Contains(out, "the last rules that were in force are in force") {
		t.Errorf("the journal's errors are %s", out)
	}
	m.does("chmod", "644", ruleFile)
	within(t, 20*time.Second, "the daemon finds by itself that it can read them", func() bool {
		return !strings.Contains(m.does("knockwall", "status"), "degraded: ")
	})
}
