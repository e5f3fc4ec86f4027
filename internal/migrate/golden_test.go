package migrate_test

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
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
			rules, err := migrate.Import(migrate.File{Name: filepath.Base(path), Text: read(t, path)})
			if err != nil {
				t.Fatal(err)
			}
			compareGolden(t, strings.TrimSuffix(path, ".conf")+".hcl", string(rules))
			mustLoad(t, rules)
		})
	}
}

// Files of one host become one rule file, in the order of their names.
func TestFilesOfOneHostAreJoined(t *testing.T) {
	for _, name := range []string{"two", "defaults"} {
		t.Run(name, func(t *testing.T) {
			paths, err := filepath.Glob(filepath.Join("testdata/hosts", name, "*.conf"))
			if err != nil || len(paths) < 2 {
				t.Fatalf("no several files: %v, %v", paths, err)
			}
			var all []migrate.File
			for _, path := range paths {
				all = append(all, migrate.File{Name: filepath.Base(path), Text: read(t, path)})
			}
			rules, err := migrate.Import(all...)
			if err != nil {
				t.Fatal(err)
			}
			compareGolden(t, filepath.Join("testdata/hosts", name+".hcl"), string(rules))
			mustLoad(t, rules)
		})
	}
}

// opensOrCloses matches commands that change who reaches a port.
var opensOrCloses = regexp.MustCompile(`(^|[ /"'])(ip6?tables|nft|ufw|firewall-cmd|ipfw|ipset|pfctl|csf|knock_add)["' ]|xt_recent|hosts\.allow`)

// TestNoDoorStaysACommandSilently makes sure that a door that still changes the firewall has
// a comment with the line to write instead, or says that it only closes.
func TestNoDoorStaysACommandSilently(t *testing.T) {
	found := 0
	for name, path := range files(t, "*.conf") {
		rules, err := migrate.Import(migrate.File{Name: name, Text: read(t, path)})
		if err != nil {
			t.Fatal(err)
		}
		for block := range strings.SplitSeq(string(rules), "\n\n") {
			comment, door, isDoor := strings.Cut(block, "\ndoor ")
			if !isDoor || strings.Contains(door, "\n  ports ") {
				continue
			}
			// The block on_open follows after a blank line.
			_, rest, _ := strings.Cut(string(rules), block)
			command, _, _ := strings.Cut(rest, "\n}")
			if !opensOrCloses.MatchString(command) {
				continue
			}
			found++
			told := strings.Join(strings.Fields(strings.ReplaceAll(comment, "\n#", " ")), " ")
			if !regexp.MustCompile(`ports = \[|closes ports|takes back|refuses sources`).MatchString(told) {
				t.Errorf("%s: no comment says what to write instead:\n%s\n%s", name, block, command)
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d doors stay commands: the test has nothing to look at", found)
	}
}

func TestEachErrorIsToldWithItsLine(t *testing.T) {
	for name, path := range files(t, "errors/*.conf") {
		t.Run(name, func(t *testing.T) {
			rules, err := migrate.Import(migrate.File{Name: filepath.Base(path), Text: read(t, path)})
			if err == nil {
				t.Fatalf("no error; it became\n%s", rules)
			}
			compareGolden(t, strings.TrimSuffix(path, ".conf")+".txt", err.Error()+"\n")
		})
	}
}
