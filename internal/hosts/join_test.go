package hosts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/invitation"
)

const (
	keyedLine    = "knockwall:1/host=server.example.org/address=203.0.113.7/door=ssh/port=22:tcp/identity=" + identity + "/udp=62201"
	knocksLine   = "knockwall:1/host=server.example.org/door=ssh/port=22:tcp/knock=4113:tcp/knock=27911:udp"
	rollingLine  = "knockwall:1/host=server.example.org/door=ssh/port=22:tcp/rolling=%24%25horse%20/length=4/ports=20000-29999:tcp/step=30"
	passwordLine = "knockwall:1/host=server.example.org/door=ssh/port=22:tcp/password=hipjazz%26%24/udp=2000"

	keyedBlock = `host "server.example.org" {
  address  = "203.0.113.7"
  identity = "` + identity + `"
  door     = "ssh"
}
`
)

func parseLine(t *testing.T, line string) *invitation.Invitation {
	t.Helper()
	i, err := invitation.Parse(line)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func content(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What join writes is what the invitation says, and joining again changes nothing.
func TestJoining(t *testing.T) {
	for _, line := range []string{keyedLine, strings.Replace(keyedLine, "62201", "4000", 1), knocksLine, rollingLine, passwordLine} {
		path := filepath.Join(t.TempDir(), "config", "knockwall", "hosts.hcl")
		i := parseLine(t, line)
		added, read, err := Join(path, i)
		if !added || err != nil {
			t.Fatalf("%s: added: %t, %v\n%s", line, added, err, said(t, read))
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the file is %v: %v", info, err)
		}
		before := content(t, path)
		host, read := Find(i.Host, []string{path})
		if host == nil || !host.says(i) {
			t.Errorf("%s: the host is %+v\n%s\n%s", line, host, before, said(t, read))
		}
		if added, _, err := Join(path, i); added || err != nil || content(t, path) != before {
			t.Errorf("%s: joining again: added: %t, %v\n%s", line, added, err, content(t, path))
		}
		for _, other := range []string{keyedLine, knocksLine, rollingLine, passwordLine} {
			if other == line || strings.Replace(other, "62201", "4000", 1) == line {
				continue
			}
			if _, _, err := Join(path, parseLine(t, other)); err == nil || !strings.Contains(err.Error(), path+" line 1 has another block for server.example.org: ") || content(t, path) != before {
				t.Errorf("%s after %s: %v", other, line, err)
			}
		}
	}
}

// A block with the address that the host had before must not pass for the invitation.
func TestTheHostHasMoved(t *testing.T) {
	const nowhere, own, first, second = "", "/address=server.example.org", "/address=203.0.113.7", "/address=203.0.113.8"
	line := func(address string) string { return strings.Replace(keyedLine, first, address, 1) }
	for _, test := range []struct {
		before, after string
		same          bool
	}{
		{first, first, true},
		{nowhere, own, true}, // without an address clients knock at the name
		{own, nowhere, true},
		{first, second, false},
		{first, nowhere, false},
		{nowhere, first, false},
	} {
		path := filepath.Join(t.TempDir(), "hosts.hcl")
		if _, _, err := Join(path, parseLine(t, line(test.before))); err != nil {
			t.Fatal(err)
		}
		before := content(t, path)
		added, _, err := Join(path, parseLine(t, line(test.after)))
		if added || (err == nil) != test.same || content(t, path) != before {
			t.Errorf("%q after %q: added: %t, %v\n%s", test.after, test.before, added, err, content(t, path))
		}
		if err != nil && !strings.Contains(err.Error(), path+" line 1 has another block for server.example.org: ") {
			t.Errorf("%q after %q: %v", test.after, test.before, err)
		}
	}
}

func TestABlockIsAddedWhereItIsUsed(t *testing.T) {
	for _, test := range []struct{ before, after string }{
		{"", keyedBlock},
		{"# mine\n", "# mine\n\n" + keyedBlock},
		{"host \"a\" { knock = [1] }", "host \"a\" { knock = [1] }\n\n" + keyedBlock},
		{"host \"*\" { knock = [1] }\n", keyedBlock + "\nhost \"*\" { knock = [1] }\n"},
		{"host \"a\" { knock = [1] }\n\n# all\n// others\n  host \"*\" { knock = [1] }\n",
			"host \"a\" { knock = [1] }\n\n" + keyedBlock + "\n# all\n// others\n  host \"*\" { knock = [1] }\n"},
		{"host \"*\" \"!server.*\" { knock = [1] }\n", "host \"*\" \"!server.*\" { knock = [1] }\n\n" + keyedBlock},
	} {
		path := filepath.Join(t.TempDir(), "hosts.hcl")
		if test.before != "" {
			write(t, path, test.before, 0o600)
		}
		if _, read, err := Join(path, parseLine(t, keyedLine)); err != nil {
			t.Errorf("%q: %v\n%s", test.before, err, said(t, read))
			continue
		}
		if diff := cmp.Diff(test.after, content(t, path)); diff != "" {
			t.Errorf("%q (-want +got)\n%s", test.before, diff)
		}
		if host, _ := Find("server.example.org", []string{path}); host == nil || host.Keyed == nil {
			t.Errorf("%q: the block is not used", test.before)
		}
	}
}

func TestAFileWithErrorsStays(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "hosts.hcl"), "host \"a\" {\n", 0o600)
	if _, read, err := Join(path, parseLine(t, keyedLine)); err == nil || said(t, read) == "" || content(t, path) != "host \"a\" {\n" {
		t.Errorf("the error is %v, and the file\n%s", err, content(t, path))
	}
}

// People keep such files in a repository, with a link to it.
func TestALinkStays(t *testing.T) {
	folder := t.TempDir()
	target := write(t, filepath.Join(folder, "target"), "", 0o600)
	path := filepath.Join(folder, "hosts.hcl")
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Join(path, parseLine(t, keyedLine)); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v: %v", info, err)
	}
	if content(t, target) != keyedBlock {
		t.Errorf("the file has\n%s", content(t, target))
	}
}
