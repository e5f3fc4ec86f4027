//go:build linux && !client

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/internal/eventually"
)

// spoil puts something in the place of a store that is no store.
func spoil(t *testing.T, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

// ruleText has rule files that need no memory, and rule files with passwords.
const (
	plainRules    = "door \"ssh\" {\n  ports = [22]\n  sequence = [4113, \"27911/udp\", 1840]\n}\n"
	passwordRules = "door \"ssh\" {\n  ports = [22]\n  otp {\n    port = \"2000/udp\"\n    open_secret = \"hipjazz\"\n  }\n}\n"
)

func TestADaemonThatCannotRememberWhatItMustSaysSo(t *testing.T) {
	program, err := exec.LookPath("knockwall")
	if err != nil {
		t.Fatal(err)
	}
	folder, err := os.MkdirTemp("", "kw") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(folder)
	rules, socket := filepath.Join(folder, "rules.hcl"), filepath.Join(folder, "control.sock")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	daemon := func() (*exec.Cmd, *strings.Builder) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, "run", "--config", rules, "--control", socket)
		cmd.Env = append(os.Environ(), "NOTIFY_SOCKET=", "STATE_DIRECTORY=")
		said := new(strings.Builder)
		cmd.Stderr = said
		isolated(cmd)
		if err := cmd.Start(); err != nil {
			lacks(t, "needs a network of its own: %v", err)
		}
		return cmd, said
	}
	spoil(t, socket+".used")

	// With such rules at the start the wall stands, and its ports are closed.
	answers := func() {
		t.Helper()
		eventually.True(t, "the daemon answers", func() bool { return exec.Command(program, "status", "--control", socket).Run() == nil })
	}
	write(passwordRules)
	cmd, said := daemon()
	answers()
	_ = cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err != nil {
		t.Errorf("run ended with %v", err)
	}
	if want := "knockwall: opening the store " + socket + ".used: "; !strings.Contains(said.String(), want) || !strings.Contains(said.String(), "what is good only once (one-time passwords, signed knocks) opens no door") {
		t.Errorf("run has said %q, and not %q", said, want)
	}

	write(plainRules)
	cmd, _ = daemon()
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	answers()
	write(passwordRules)
	output, err := exec.Command(program, "reload", "--control", socket).CombinedOutput()
	var failure *exec.ExitError
	if !errors.As(err, &failure) || failure.ExitCode() != exitFailed || !strings.Contains(string(output), "opening the store "+socket+".used: ") {
		t.Errorf("reload has said %q: %v", output, err)
	}
	output, err = exec.Command(program, "status", "--json", "--control", socket).Output()
	if err != nil || !strings.Contains(string(output), `"sequence"`) || strings.Contains(string(output), `"otp"`) {
		t.Errorf("the former rules are not in force: %s, %v", output, err)
	}
}
