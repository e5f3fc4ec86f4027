package migrate_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/migrate"
	"github.com/knockwall/knockwall/ruleset"
)

var update = flag.Bool("update", false, "write the golden files anew, to be reviewed by eye")

// files returns the files in testdata that match a pattern, by name without .conf.
func files(t testing.TB, pattern string) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files testdata/%s: %v", pattern, err)
	}
	all := map[string]string{}
	for _, path := range paths {
		all[strings.TrimSuffix(filepath.Base(path), ".conf")] = path
	}
	return all
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
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
	if diff := cmp.Diff(string(read(t, path)), got); diff != "" {
		t.Errorf("it differs from %s (-want +got); if it is better, run with -update:\n%s", path, diff)
	}
}

// mustLoad fails unless the result is a rule file without errors.
func mustLoad(t *testing.T, rules []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rules.hcl")
	if err := os.WriteFile(path, rules, 0o600); err != nil {
		t.Fatal(err)
	}
	if l := ruleset.Review(path); l.Config == nil {
		var b strings.Builder
		l.WriteText(&b, 78, false)
		t.Fatalf("refused:\n%s\n%s", &b, rules)
	}
}

func TestFilesBecomeRuleFilesAsReviewed(t *testing.T) {
	for name, path := range files(t, "*.conf") {
		t.Run(name, func(t *testing.T) {
			rules, err := migrate.Import(filepath.Base(path), read(t, path))
			if err != nil {
				t.Fatal(err)
			}
			compareGolden(t, strings.TrimSuffix(path, ".conf")+".hcl", string(rules))
			mustLoad(t, rules)
		})
	}
}

func TestEachErrorIsToldWithItsLine(t *testing.T) {
	for name, path := range files(t, "errors/*.conf") {
		t.Run(name, func(t *testing.T) {
			rules, err := migrate.Import(filepath.Base(path), read(t, path))
			if err == nil {
				t.Fatalf("no error; it became\n%s", rules)
			}
			compareGolden(t, strings.TrimSuffix(path, ".conf")+".txt", err.Error()+"\n")
		})
	}
}
