package ruleset

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/internal/spa"
)

// keyed returns the path of rule files with a door for keys, beside a people file.
func keyed(t *testing.T, wall string) string {
	t.Helper()
	path := write(t, "")
	people := filepath.Join(filepath.Dir(path), "people")
	for name, text := range map[string]string{
		people: "# nobody yet\n",
		path:   fmt.Sprintf("%s\ndoor \"ssh\" {\nports = [22]\nkeys { authorized = [%q] }\n}\n", wall, people),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func newIdentity(t *testing.T) spa.Identity {
	t.Helper()
	i, err := spa.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestTheIdentityLiesBesideTheRuleFiles(t *testing.T) {
	path := keyed(t, "")
	at := filepath.Join(filepath.Dir(path), "identity")
	for _, of := range []string{path, filepath.Dir(path)} {
		if got := DefaultIdentity(of); got != at {
			t.Errorf("of %s: %s, want %s", of, got, at)
		}
	}
	if got := DefaultIdentity("/etc/knockwall.d"); filepath.ToSlash(got) != "/etc/knockwall.d/identity" && !strings.HasSuffix(got, `\identity`) {
		t.Errorf("the default: %s", got)
	}
	l := Load(path)
	if errors := l.Errors().Diagnostics; l.Config != nil || len(errors) != 1 || errors[0].Summary != "No identity" || !strings.Contains(errors[0].Detail, at) {
		t.Errorf("without an identity: %v", l.Diagnostics)
	}
	i := newIdentity(t)
	if err := os.WriteFile(at, i.Text(), 0o600); err != nil {
		t.Fatal(err)
	}
	if l := Load(path); l.Config == nil || l.Config.Wall.IdentityPath != at || l.Config.Wall.Identity.Public() != i.Public() {
		t.Errorf("with an identity: %v", l.Diagnostics)
	}
}

// A people file without a key is named, and none of its lines is shown.
func TestAPeopleFileWithoutAKeyIsNamed(t *testing.T) {
	path := keyed(t, "")
	people := filepath.Join(filepath.Dir(path), "people")
	if err := os.WriteFile(DefaultIdentity(path), newIdentity(t).Text(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "\n", "# nobody yet\n", "# nobody yet\n# nor later\n"} {
		if err := os.WriteFile(people, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		if err := Load(path).WriteText(&said, 1000, false); err != nil {
			t.Fatal(err)
		}
		if want := "Warning: Nobody is listed\n\n  on " + people + "\n\nThe file has no key. "; !strings.Contains(said.String(), want) {
			t.Errorf("of %q it is said:\n%s", text, said.String())
		}
	}
}

// A copy of the rule files reads the identity of the original.
func TestTheKeptRulesHaveTheIdentity(t *testing.T) {
	path := keyed(t, "")
	if err := os.WriteFile(DefaultIdentity(path), newIdentity(t).Text(), 0o600); err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(t.TempDir(), "kept")
	if err := Load(path).Save(kept); err != nil {
		t.Fatal(err)
	}
	l, err := Recall(kept, path)
	if err != nil || l.Config == nil || l.Config.Wall.Identity == nil {
		t.Errorf("%v, %v", err, l.Diagnostics)
	}
}

func TestWhereAnIdentityComesFrom(t *testing.T) {
	i := newIdentity(t)
	file := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.WriteFile(file, i.Text(), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KNOCKWALL_TEST_IDENTITY", string(i.Text()))
	for _, tt := range []struct{ wall, summary string }{
		{fmt.Sprintf("wall { identity = %q }", file), ""},
		{fmt.Sprintf("wall { identity = file(%q) }", file), ""},
		{`wall { identity = env("KNOCKWALL_TEST_IDENTITY") }`, ""},
		{`wall { identity = env("KNOCKWALL_TEST_NOTHING") }`, "No secret"},
		{`wall { identity = "identity" }`, "Not an absolute path"},
		{fmt.Sprintf("wall { identity = %q }", strings.TrimSpace(string(i.Text()))), "Not an absolute path"},
		{fmt.Sprintf("wall { identity = %q }", os.Args[0]), "Identity that cannot be used"},
		{`wall { identity = "/no/such/file" }`, "No identity"},
	} {
		l := Load(keyed(t, tt.wall))
		if tt.summary == "" && (l.Config == nil || l.Config.Wall.Identity.Public() != i.Public()) {
			t.Errorf("%s: %v", tt.wall, l.Diagnostics)
		}
		if errors := l.Errors().Diagnostics; tt.summary != "" && (len(errors) != 1 || errors[0].Summary != tt.summary) {
			t.Errorf("%s: %v", tt.wall, l.Diagnostics)
		}
		var text strings.Builder
		if err := l.WriteText(&text, 80, false); err != nil || strings.Contains(text.String(), strings.TrimSpace(string(i.Text()[len("kw1-private:"):]))) {
			t.Errorf("%s: the secret is shown: %s", tt.wall, &text)
		}
	}
}
