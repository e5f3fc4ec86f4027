package systemd

import (
	"strings"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

// As root, check reports what the daemon's user cannot read and how to fix that. The fix
// is sufficient.
func TestCheckReadsAsTheDaemonUnderSystemd(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	m := newPackaged(l, lab.RulesWith("", "10m"))
	check := func(wrong bool, want string, arguments ...string) {
		t.Helper()
		out, err := m.tell("knockwall", append([]string{"check"}, arguments...)...)
		if err != nil {
			out += err.Error()
		}
		out = strings.Join(strings.Fields(out), " ")
		if (err != nil) != wrong || !strings.Contains(out, want) {
			t.Errorf("check %q: %v, want %q: %s", arguments, err, want, out)
		}
	}
	check(false, "1 door, no errors")

	m.does("chown", "root:root", ruleFile)
	m.does("chmod", "640", ruleFile)
	check(true, "chgrp knockwall "+ruleFile+" && chmod g+r "+ruleFile)
	check(true, `"valid": false`, "--json")
	check(true, "permission denied", "--config", ruleFile)
	m.does("sh", "-c", "chgrp knockwall "+ruleFile+" && chmod g+r "+ruleFile)
	check(false, "1 door, no errors")

	// Make the folder and the files that the rules name unreadable.
	m.does("chmod", "700", "/etc/knockwall.d")
	m.does("chgrp", "root", "/etc/knockwall.d")
	check(true, "chgrp knockwall /etc/knockwall.d && chmod g+rx /etc/knockwall.d")
	m.does("sh", "-c", "chgrp knockwall /etc/knockwall.d && chmod g+rx /etc/knockwall.d")
	m.does("install", "-d", "-m", "700", "/etc/knockwall.secrets")
	m.does("install", "-m", "600", "/dev/null", "/etc/knockwall.secrets/list")
	listed := "door \"ssh\" {\n  ports = [22]\n  one_time_sequences = \"/etc/knockwall.secrets/list\"\n}\n"
	m.rules(listed)
	check(true, "chgrp knockwall /etc/knockwall.secrets && chmod g+rx /etc/knockwall.secrets")
	m.does("sh", "-c", "chgrp knockwall /etc/knockwall.secrets && chmod g+rx /etc/knockwall.secrets")
	check(true, "chgrp knockwall /etc/knockwall.secrets/list && chmod g+rw /etc/knockwall.secrets/list")
	m.does("rm", "/etc/knockwall.secrets/list")
	check(true, "Error: No list of sequences") // the daemon does not start without it

	// A file that no service reads may be readable by root only.
	m.write("/root/draft.hcl", lab.RulesWith("", "10m"), 0o600)
	check(false, "1 door, no errors", "--config", "/root/draft.hcl")
}
