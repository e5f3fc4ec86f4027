//go:build linux

package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/doctor"
)

const brokenRules = "door \"web\" {\n  ports = [0]\n}\n"

// ruleFile is a rule file, and the place of the control socket beside it.
type ruleFile struct {
	t              *testing.T
	path, controls string
}

func newRuleFile(t *testing.T) *ruleFile {
	t.Setenv("STATE_DIRECTORY", "")
	folder := t.TempDir()
	return &ruleFile{t, filepath.Join(folder, "rules.hcl"), filepath.Join(folder, "control")}
}

// start writes the rule file, and starts with it in a new daemon. It returns the names of
// the doors, and what is written to stderr.
func (f *ruleFile) start(text string, onTrial bool) (r *rules, doors, stderr string, err error) {
	f.t.Helper()
	if err := os.WriteFile(f.path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	r = newRules(f.path, f.controls, newStores(f.controls, nil))
	var b strings.Builder
	config, err := r.start(&b, onTrial)
	if config != nil {
		for _, d := range config.Doors {
			doors += d.Name
		}
	}
	return r, doors, b.String(), err
}

// keep has the rules with the door ssh kept, as a daemon does.
func (f *ruleFile) keep() {
	f.t.Helper()
	r, doors, stderr, err := f.start(sshRules, false)
	if err != nil || doors != "ssh" || stderr != "" {
		f.t.Fatalf("doors %q, %v, stderr %q", doors, err, stderr)
	}
	if err := r.keep(); err != nil {
		f.t.Fatal(err)
	}
}

func TestStartWithBrokenRuleFiles(t *testing.T) {
	f := newRuleFile(t)
	var none *RulesError
	if _, _, stderr, err := f.start(brokenRules, false); !errors.As(err, &none) || none.err != nil || !strings.Contains(stderr, "Error: Not a port") {
		t.Errorf("no rules are kept: %v, stderr %s", err, stderr)
	}
	f.keep()
	if _, _, stderr, err := f.start(brokenRules, true); !errors.As(err, &none) || none.err != nil || !strings.Contains(stderr, "Error: Not a port") {
		t.Errorf("on trial: %v, stderr %s", err, stderr)
	}

	r, doors, stderr, err := f.start(brokenRules, false)
	if err != nil || doors != "ssh" || !strings.Contains(stderr, "the last rules that were in force are in force") {
		t.Fatalf("rules are kept: doors %q, %v, stderr %s", doors, err, stderr)
	}
	files := r.examine()
	if !files.Differ || len(files.Findings) != 1 || files.Findings[0].Severity != doctor.Error || !strings.Contains(files.Findings[0].Problem, "rules.hcl line ") {
		t.Errorf("the files differ: %t, findings %+v", files.Differ, files.Findings)
	}
	misspelt := strings.Replace(sshRules, "sequence", "sequense", 1)
	if r, _, _, err = f.start(misspelt, false); err != nil {
		t.Fatal(err)
	}
	if found := r.examine().Findings; len(found) != 1 || !strings.HasSuffix(found[0].Problem, `Did you mean "sequence"?`) {
		t.Errorf("findings about a misspelt name: %+v", found)
	}
	if !files.Failed || !files.InForce.IsZero() {
		t.Errorf("the broken files failed: %t, and are in force since %s", files.Failed, files.InForce)
	}
	if err := os.WriteFile(f.path, []byte("wall { }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.keep(); err != nil {
		t.Error(err)
	}
	if _, doors, _, err := f.start(brokenRules, false); err != nil || doors != "ssh" {
		t.Errorf("after a start with the kept rules these are %q, %v", doors, err)
	}
}

func TestStartAfterATrialThatWasNotConfirmed(t *testing.T) {
	f := newRuleFile(t)
	web := strings.ReplaceAll(sshRules, "ssh", "web")
	r := newRules(f.path, f.controls, nil)
	if err := r.markUnconfirmed(); err != nil {
		t.Fatal(err)
	}
	var none *RulesError
	if _, _, _, err := f.start(web, false); !errors.As(err, &none) || !strings.Contains(err.Error(), "Remove "+f.controls+".unconfirmed to start") {
		t.Errorf("no rules are kept: %v", err)
	}
	if err := r.markConfirmed(); err != nil {
		t.Fatal(err)
	}
	f.keep()
	if err := r.markUnconfirmed(); err != nil {
		t.Fatal(err)
	}
	if _, doors, stderr, err := f.start(web, false); err != nil || doors != "ssh" || !strings.Contains(stderr, "were on trial and not confirmed") {
		t.Errorf("doors %q, %v, stderr %s", doors, err, stderr)
	}
	if _, doors, stderr, err := f.start(web, true); err != nil || doors != "web" || stderr != "" {
		t.Errorf("on trial again: doors %q, %v, stderr %s", doors, err, stderr)
	}
	if err := errors.Join(r.markConfirmed(), r.markConfirmed()); err != nil {
		t.Error(err)
	}
	if _, doors, stderr, err := f.start(web, false); err != nil || doors != "web" || stderr != "" {
		t.Errorf("confirmed: doors %q, %v, stderr %s", doors, err, stderr)
	}
	// Another file than the daemon's own does not count.
	if err := os.Symlink(f.path, r.unconfirmed); err != nil {
		t.Fatal(err)
	}
	if r.areUnconfirmed() {
		t.Error("a symbolic link makes the rules unconfirmed")
	}
}

// A boot empties the file system of /run, and with it what says that the rule files are
// unconfirmed. Elsewhere that stays. Only systemd starts a daemon at boot.
func TestWhatABootBringsDuringATrial(t *testing.T) {
	for _, test := range []struct {
		folder, systemd string
		want            control.Rules
	}{
		{"/dev/shm", "@systemd", control.Files},
		{"/proc/self", "@systemd", control.Former},
		{"/dev/shm", "", control.None},
	} {
		t.Setenv("NOTIFY_SOCKET", test.systemd)
		r := newRules("rules.hcl", filepath.Join(test.folder, "control.sock"), nil)
		if got := r.afterBoot(); got != test.want {
			t.Errorf("in %s, under systemd %q: %s, want %s", test.folder, test.systemd, got, test.want)
		}
	}
}
