package ruleset

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/method/passwords"
	"github.com/knockwall/knockwall/internal/method/rolling"
	"github.com/knockwall/knockwall/internal/secret"
)

// keyFile writes a secret to a file of this mode, and returns its path.
func keyFile(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // the umask does not apply to chmod
		t.Fatal(err)
	}
	return path
}

// opened returns a rule file with a door that this secret opens.
func opened(secret string) string {
	return "door \"d\" {\nports = [22]\notp {\nport = \"2000/udp\"\nopen_secret = " + secret + "\n}\n}\n"
}

// said returns the diagnostics of a file on one line.
func said(t *testing.T, l *Loaded) string {
	t.Helper()
	return strings.Join(strings.Fields(diagnosticText(t, l)), " ")
}

// otpOf returns the one-time passwords of a door.
func otpOf(d *Door) *passwords.OTP {
	for _, m := range d.Methods {
		if otp, ok := m.(*passwords.OTP); ok {
			return otp
		}
	}
	return nil
}

func TestSecretsComeFromWhereTheFileSays(t *testing.T) {
	const key = "hipjazz"
	path := keyFile(t, "vpn.open-1_A", key+"\n", 0o400)
	t.Setenv("CREDENTIALS_DIRECTORY", filepath.Dir(path))
	t.Setenv("KNOCKWALL_TEST_SECRET", key)
	for _, source := range []string{
		`credential("vpn.open-1_A")`, `file("` + path + `")`, `env("KNOCKWALL_TEST_SECRET")`,
	} {
		c := mustLoad(t, write(t, opened(source))) // others may read this file
		if got := string(otpOf(&c.Doors[0]).Open.Key()); got != key {
			t.Errorf("%s is %q", source, got)
		}
		if otpOf(&c.Doors[0]).Close.IsSet() {
			t.Errorf("%s: there is a secret that closes the door", source)
		}
	}
	for text, want := range map[string]string{
		`"hipjazz"`: key, `"hip\"jazz"`: `hip"jazz`, `"007"`: "007", `"$${x}"`: "${x}",
		`"12345678901234567890"`: "12345678901234567890", "<<EOT\nhipjazz\nEOT": "hipjazz\n",
	} {
		if got := string(otpOf(&mustLoad(t, writePrivate(t, opened(text))).Doors[0]).Open.Key()); got != want {
			t.Errorf("%s is %q", text, got)
		}
	}
}

// A number is refused, as HCL changes its text: 007 would be 7.
func TestASecretIsNoNumber(t *testing.T) {
	for _, number := range []string{"007", "12345678901234567890", "1e3", "-1", "true"} {
		l := Load(writePrivate(t, opened(number)))
		if text := said(t, l); l.Config != nil || !strings.Contains(text, "Not a source of secrets") {
			t.Errorf("%s: %s", number, text)
		}
	}
}

func TestWhatIsNoSecretIsToldWithItsReason(t *testing.T) {
	folder := t.TempDir()
	empty := keyFile(t, "empty", "\n", 0o600)
	exposed := keyFile(t, "exposed", "hipjazz\n", 0o604)
	shared := keyFile(t, "shared", "hipjazz\n", 0o620)
	nul := keyFile(t, "nul", "hip\x00jazz", 0o600)
	long := keyFile(t, "long", strings.Repeat("hipjazz", 1000), 0o600)
	for _, test := range []struct {
		name, source, credentials, want string
		warns                           bool // who reviews the file
	}{
		{"no credentials", `credential("a")`, "", "restart the service: systemctl restart knockwall", true},
		{"no such credential", `credential("a")`, folder, `add LoadCredential=NAME:/path/of/the/secret to the unit (systemctl edit knockwall), then restart the service`, false},
		{"a credential elsewhere", `credential("../a")`, folder, "this is not the name of a credential", false},
		{"a credential of no name", `credential("")`, folder, "this is not the name of a credential", false},
		{"the folder of credentials", `credential(".")`, folder, "this is not the name of a credential", false},
		{"a credential of a long name", `credential("` + strings.Repeat("a", 256) + `")`, folder, "is not the name of a credential", false},
		{"an empty credential", `credential("empty")`, filepath.Dir(empty), "empty is empty", false},
		{"a relative file", `file("vpn.key")`, "", "has to begin with /", false},
		{"a missing file", `file("` + folder + `/a")`, "", "no such file", false},
		{"a folder", `file("` + folder + `")`, "", "is not a regular file", false},
		{"an empty file", `file("` + empty + `")`, "", "is empty", false},
		{"a file that others can read", `file("` + exposed + `")`, "", "open to everybody on this host", false},
		{"a file that others can write", `file("` + shared + `")`, "", "the group of", false},
		{"a file with a NUL byte", `file("` + nul + `")`, "", "has a NUL byte", false},
		{"a file that is too long", `file("` + long + `")`, "", "more than 4096 bytes", false},
		{"no such variable", `env("KNOCKWALL_TEST_NO_SECRET")`, "", "the environment has no variable with this name", false},
		{"a literal that others can read", `"hipsecret"`, "", "chmod o=", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("CREDENTIALS_DIRECTORY", test.credentials)
			path := write(t, opened(test.source))
			l := Load(path)
			if text := said(t, l); l.Config != nil || !strings.Contains(strings.ToLower(text), strings.ToLower(test.want)) {
				t.Errorf("want %q, got:\n%s", test.want, text)
			}
			if d := l.Diagnostics[0]; len(l.Diagnostics) != 1 || d.Subject == nil || d.Subject.Start.Line != 5 || d.Subject.Start.Column != len("open_secret = ")+1 {
				t.Errorf("it is told elsewhere: %v", l.Diagnostics)
			}
			l = Review(path)
			if text := said(t, l); (l.Config != nil) != test.warns || !strings.Contains(strings.ToLower(text), strings.ToLower(test.want)) {
				t.Errorf("in a review, want %q as a warning: %t, got:\n%s", test.want, test.warns, text)
			}
		})
	}
}

// A literal secret is accepted only in files that nobody but the owner and the group can
// read.
func TestALiteralSecretIsForFilesThatOthersCannotRead(t *testing.T) {
	for mode, taken := range map[os.FileMode]bool{
		0o600: true, 0o400: true, 0o640: true, 0o660: false, 0o604: false, 0o602: false, 0o601: false, 0o644: false,
	} {
		path := write(t, opened(`"hipjazz"`))
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		for name, load := range map[string]func(string) *Loaded{"Load": Load, "Review": Review} {
			if l := load(path); (l.Config != nil) != taken {
				t.Errorf("%s of a file of mode %o: taken %t; %s", name, mode, !taken, said(t, l))
			}
		}
	}
}

// Review warns of missing credentials and lists, and leaves them out. Load refuses the
// files.
func TestAReviewWarnsOfWhatOnlyTheDaemonHas(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	paths := map[string]string{
		"Secret not looked at": write(t, opened(`credential("d")`)),
		"No list of sequences": write(t, "door \"d\" {\nports = [22]\none_time_sequences = \""+t.TempDir()+"/none\"\n}\n"),
	}
	for want, path := range paths {
		if l := Load(path); l.Config != nil {
			t.Errorf("loaded: %s", said(t, l))
		}
		l := Review(path)
		if l.Config == nil || len(l.Diagnostics) != 1 || l.Diagnostics[0].Severity != hcl.DiagWarning || l.Diagnostics[0].Summary != want {
			t.Errorf("want the warning %q alone: %s", want, said(t, l))
		}
	}
}

// No diagnostic has the text of a secret.
func TestNoDiagnosticHasASecret(t *testing.T) {
	const key = "qzqzjazz"
	long := strings.Repeat(key, 5)
	t.Setenv("KNOCKWALL_TEST_SECRET", key)
	t.Setenv("KNOCKWALL_TEST_LONG_SECRET", long)
	file, longFile := keyFile(t, "short", key+"\n", 0o600), keyFile(t, "long", long+"\n", 0o600)
	exposed := keyFile(t, "exposed", key+"\n", 0o644)
	t.Setenv("CREDENTIALS_DIRECTORY", filepath.Dir(file))
	for name, text := range map[string]string{
		"too long, of env":        opened(`env("KNOCKWALL_TEST_LONG_SECRET")`),
		"too long, of file":       opened(`file("` + longFile + `")`),
		"too short, of env":       "door \"d\" {\nports = [22]\nrolling { secret = env(\"KNOCKWALL_TEST_SECRET\") }\n}",
		"too short, of file":      "door \"d\" {\nports = [22]\nrolling { secret = file(\"" + file + "\") }\n}",
		"too short, a credential": "door \"d\" {\nports = [22]\nrolling { secret = credential(\"short\") }\n}",
		"exposed":                 opened(`file("` + exposed + `")`),
		"equal": opened("env(\"KNOCKWALL_TEST_SECRET\")\nclose_secret = file(\""+file+"\")") +
			strings.Replace(opened("credential(\"short\")\nclose_secret = credential(\"short\")"), `"d"`, `"e"`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			for _, l := range []*Loaded{Load(write(t, text)), Review(write(t, text))} {
				if len(l.Diagnostics) == 0 {
					t.Fatal("nothing is said")
				}
				asJSON, err := json.Marshal(l.Diagnostics)
				if err != nil {
					t.Fatal(err)
				}
				for _, out := range []string{diagnosticText(t, l), l.Diagnostics.Error(), fmt.Sprintf("%+v", l.Config), string(asJSON)} {
					if strings.Contains(out, key) {
						t.Errorf("it is shown:\n%s", out)
					}
				}
			}
		})
	}
	// For a literal secret, the message does not quote it.
	for name, text := range map[string]string{
		"too long":       opened(`"` + long + `"`),
		"without quotes": opened(key),
		"computed":       opened(`"${1 + 1}` + key + `"`),
		"a list":         opened(`["` + key + `"]`),
		"a function":     opened(`vault("` + key + `")`),
		"equal":          opened("\"" + key + "\"\nclose_secret = \"" + key + "\""),
		"too short":      "door \"d\" {\nports = [22]\nrolling { secret = \"" + key + "\" }\n}",
	} {
		l := Load(writePrivate(t, text))
		if len(l.Diagnostics) == 0 {
			t.Errorf("%s: nothing is said", name)
		}
		for _, d := range l.Diagnostics {
			if strings.Contains(d.Summary+d.Detail, key) {
				t.Errorf("%s: %s: %s", name, d.Summary, d.Detail)
			}
		}
	}
}

// A saved configuration reads secrets from the same sources. Its copy of literal secrets is
// readable for the owner only.
func TestSavedRulesHaveTheSameSecrets(t *testing.T) {
	key := keyFile(t, "key", "correct horse battery staple\n", 0o600)
	lines := list(t, "1,2,3", "4,5,6", "7,8,9", "10,11,12")
	loaded := Load(writePrivate(t, `
door "rolling" {
  ports = [22]
  rolling {
    secret = file("`+key+`")
  }
}
door "otp" {
  ports = [23]
  otp {
    port         = "2000/udp"
    open_secret  = "hipjazz"
    close_secret = file("`+key+`")
  }
}
door "list" {
  one_time_sequences = "`+lines+`"
  on_open {
    command = ["/bin/sh", "${source}"]
  }
}
`))
	if loaded.Config == nil {
		t.Fatal(said(t, loaded))
	}
	folder := filepath.Join(t.TempDir(), "former")
	if err := loaded.Save(folder); err != nil {
		t.Fatal(err)
	}
	saved := mustLoad(t, folder)
	if diff := cmp.Diff(loaded.Config, saved, equalConfigs, cmp.Comparer(func(a, b secret.Secret) bool { return a.Equal(b) })); diff != "" {
		t.Errorf("(-loaded +saved):\n%s", diff)
	}
	if string(saved.Doors[0].Methods[0].(*rolling.Rolling).Secret.Key()) != "correct horse battery staple" || string(otpOf(&saved.Doors[1]).Open.Key()) != "hipjazz" {
		t.Error("the secrets are others")
	}
}
