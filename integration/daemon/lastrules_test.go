package daemon

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

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/doctor"
)

const lastRulesSecret = "hipjazz"

// boot ends the daemon and removes the wall, as a reboot does.
func boot(d *lab.Daemon) {
	d.Lab.T.Helper()
	down := lab.Knockwall("down", "--control", d.Control)
	lab.Must(d.Lab.T, d.Lab.Server.Do(down.Run))
	d.WaitForExit()
}

// passwordOfNothing returns the password that an empty key makes.
func passwordOfNothing() string {
	sum := hmac.New(sha256.New, nil)
	sum.Write(binary.LittleEndian.AppendUint32(lab.Client4.AsSlice(), uint32(lab.Minute())))
	return hex.EncodeToString(sum.Sum(nil)) + "\n"
}

// If rule files cannot be used, or their secrets and lists are gone, the daemon starts
// with the last rules in force. They admit nobody who should not be admitted. When the
// missing files are back, they admit all who should be.
func TestTheLastRulesInForceStandWhenTheFilesCannotBeUsed(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	for _, port := range []int{22, 23, 24} {
		l.ServeTCP(port)
	}
	secret, list := filepath.Join(l.Folder, "secret"), filepath.Join(l.Folder, "list")
	there := func() {
		lab.Must(t, os.WriteFile(secret, []byte(lastRulesSecret), 0o600))
		lab.Must(t, os.WriteFile(list, []byte("5227,911,30411\n"), 0o600))
	}
	there()
	rules := lab.RulesWith("", "10m") + `
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
	boot(l.Run(rules))
	if !l.Admits(lab.Client4, lab.Server4, 22) {
		t.Fatal("the wall stands after it was taken down")
	}

	lab.Must(t, os.Remove(secret))
	lab.Must(t, os.Remove(list))
	d := l.Run(rules + `door "web" {`)
	for _, port := range []int{22, 23, 24} {
		if l.AdmitsAtOnce(lab.Client4, lab.Server4, port) {
			t.Errorf("strangers get in at the port %d", port)
		}
	}
	s := d.Status()
	if len(s.Findings) == 0 || s.Findings[0].Check != "rules" || !strings.Contains(s.Findings[0].Problem, "rules.hcl line ") || !s.FilesDiffer {
		t.Errorf("the status has %+v, and that the files differ: %t", s.Findings, s.FilesDiffer)
	}
	if left := s.Doors[2].SequencesLeft; left != nil {
		t.Errorf("of a list that is gone, %d are said to be left", *left)
	}
	l.SendDatagram(lab.Client4, lab.Server4, 2000, passwordOfNothing())
	l.Knock(lab.Client4, lab.Server4, lab.TCP(5227), lab.TCP(911), lab.TCP(30411))
	for _, port := range []int{23, 24} {
		if l.AdmitsAtOnce(lab.Client4, lab.Server4, port) {
			t.Errorf("somebody gets in at the port %d, whose secret is gone", port)
		}
	}
	l.Enter(lab.Source(1, lab.Server4), lab.Server4)

	// The missing files are back, and the rule files are as before.
	l.WriteRules(rules)
	there()
	d.WaitFor("the rule files can be used again")
	ofRules := func(f doctor.Finding) bool { return f.Check == "rules" }
	if s := d.Status(); slices.ContainsFunc(s.Findings, ofRules) || s.FilesDiffer {
		t.Errorf("the status still has %+v, and that the files differ: %t", s.Findings, s.FilesDiffer)
	}
	lab.Must(t, l.Client.Do(l.PreparePassword(lastRulesSecret, lab.Client4, lab.Server4, 2000)))
	if !l.Admits(lab.Client4, lab.Server4, 23) {
		t.Error("the password does not open")
	}
	l.Knock(lab.Client4, lab.Server4, lab.TCP(5227), lab.TCP(911), lab.TCP(30411))
	if !l.Admits(lab.Client4, lab.Server4, 24) {
		t.Error("the list does not open")
	}
	if b, err := os.ReadFile(list); err != nil || string(b) != "#227,911,30411\n" {
		t.Errorf("the list is %q, %v", b, err)
	}

	// Without kept rules the start fails, and the wall stays as it is.
	d.Stop(syscall.SIGKILL)
	lab.Must(t, os.RemoveAll(d.Control+".rules"))
	d = l.Launch(`door "web" {`)
	var failed *exec.ExitError
	if err := d.WaitForExit(); !errors.As(err, &failed) || failed.ExitCode() != 2 {
		t.Errorf("with no rules kept run ends with %v", err)
	}
	if l.AdmitsAtOnce(lab.Source(2, lab.Server4), lab.Server4, 22) {
		t.Error("the wall that stood is gone")
	}
}
