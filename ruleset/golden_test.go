package ruleset

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/otp"
)

var update = flag.Bool("update", false, "write the golden files anew, to be reviewed by eye")

// ruleFilesIn returns the rule files of a folder of testdata, by name without .hcl.
func ruleFilesIn(t *testing.T, folder string) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", folder, "*.hcl"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no rule files in testdata/%s: %v", folder, err)
	}
	files := map[string]string{}
	for _, path := range paths {
		files[strings.TrimSuffix(filepath.Base(path), ".hcl")] = path
	}
	return files
}

// compareGolden compares got with a golden file, which -update writes.
func compareGolden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("it differs from %s (-want +got); if it is better, run with -update:\n%s", path, diff)
	}
}

// diagnosticText returns the diagnostics as a user sees them.
func diagnosticText(t *testing.T, l *Loaded) string {
	t.Helper()
	var b strings.Builder
	if err := l.WriteText(&b, 78, false); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// setSecrets sets the secrets that the rule files of testdata take from the environment,
// and removes all others.
func setSecrets(t testing.TB) {
	t.Helper()
	for name, value := range map[string]string{
		"KNOCKWALL_TEST_SECRET":         "correct horse battery staple",
		"KNOCKWALL_TEST_SHORT_SECRET":   "hipjazz",
		"KNOCKWALL_TEST_LONG_SECRET":    strings.Repeat("x", otp.MaxSecret+1),
		"KNOCKWALL_TEST_KEY":            "9uBaXTpu7gZxzxJWCBcc2jajIavpXPA847GX1ZYYGrY=",
		"KNOCKWALL_TEST_HMAC_KEY":       "TPZ3jmyNthUPxqzFl0NIQmlMZfa+ZSSiJZS3F6f6xhS/+39iK2GSvhGKOVUd6iSV+5GoiTT1dg+Pcrps3bC9oQ==",
		"KNOCKWALL_TEST_OTHER_HMAC_KEY": "mK3jmyNthUPxqzFl0NIQmlMZfa+ZSSiJZS3F6f6xhS/+39iK2GSvhGKOVUd6iSV+5GoiTT1dg+Pcrps3bC9oQA==",
		"CREDENTIALS_DIRECTORY":         "",
	} {
		t.Setenv(name, value)
	}
}

func TestEachErrorIsToldWithItsPlace(t *testing.T) {
	setSecrets(t)
	for name, path := range ruleFilesIn(t, "errors") {
		t.Run(name, func(t *testing.T) {
			l := Load(path)
			if l.Config != nil {
				t.Error("a configuration was made of a file with errors")
			}
			if !l.Diagnostics.HasErrors() {
				t.Error("no error was found")
			}
			compareGolden(t, strings.TrimSuffix(path, ".hcl")+".txt", diagnosticText(t, l))
		})
	}
}

func TestWarningsAreToldAndRefuseNothing(t *testing.T) {
	setSecrets(t)
	for name, path := range ruleFilesIn(t, "warnings") {
		t.Run(name, func(t *testing.T) {
			l := Load(path)
			text := diagnosticText(t, l)
			if l.Config == nil {
				t.Errorf("no configuration; it was said:\n%s", text)
			}
			if wanted := name != "good"; wanted != (len(l.Diagnostics) > 0) {
				t.Errorf("%d warnings", len(l.Diagnostics))
			}
			compareGolden(t, strings.TrimSuffix(path, ".hcl")+".txt", text)
		})
	}
}
