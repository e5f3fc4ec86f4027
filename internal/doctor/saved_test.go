package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/ruleset"
)

// saved examines a saved ruleset. files are names and contents; the first is the main
// file.
func saved(t *testing.T, files ...string) ([]Finding, error) {
	t.Helper()
	folder := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		if err := os.WriteFile(filepath.Join(folder, files[i]), []byte(files[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := savedRulesets
	t.Cleanup(func() { savedRulesets = before })
	savedRulesets = []string{filepath.Join(folder, files[0])}
	return findSaved(&Host{Config: &ruleset.Config{Wall: ruleset.Wall{Table: "knockwall"}}})
}

func TestASavedCopyOfTheTableIsFound(t *testing.T) {
	const own = "table inet knockwall {\n\tchain prerouting {\n\t}\n}\n"
	for name, files := range map[string][]string{
		"in the file":           {"nftables.conf", "#!/usr/sbin/nft -f\nflush ruleset\ntable inet filter {\n}\n" + own},
		"with an owner":         {"nftables.conf", "table inet knockwall { # progname knockwall\n\tflags owner,persist\n}\n"},
		"on one line":           {"nftables.conf", "table inet knockwall{chain x{}}"},
		"in a file it includes": {"nftables.conf", "include \"more.nft\"\n", "more.nft", own},
		"in one of a pattern":   {"nftables.conf", "include \"./*.nft\"\n", "a.nft", "table ip x { }\n", "b.nft", own},
		"that includes another": {"nftables.conf", "include \"a.nft\"\n", "a.nft", "include \"b.nft\"; include \"a.nft\"\n", "b.nft", own},
	} {
		t.Run(name, func(t *testing.T) {
			findings, err := saved(t, files...)
			if err != nil || len(findings) != 1 || !strings.Contains(findings[0].Problem, files[len(files)-2]) {
				t.Errorf("found %+v, %v", findings, err)
			}
		})
	}
}

func TestASavedRulesetOfOthersIsLeftAlone(t *testing.T) {
	for _, text := range []string{
		"", "table inet filter {\n}\n", "table ip knockwall {\n}\n", "# table inet knockwall {\n",
		"table inet knockwall2 {\n}\n", "delete table inet knockwall\n",
		"table inet filter {\n chain x {\n comment \"knockwall\"\n }\n}\n", "include \"/nowhere/*.nft\"\n",
	} {
		if findings, err := saved(t, "nftables.conf", text); err != nil || len(findings) > 0 {
			t.Errorf("%q: found %+v, %v", text, findings, err)
		}
	}
}

// Reading ends at a limit, and an error names what was not read.
func TestASavedRulesetIsReadUpToALimit(t *testing.T) {
	files := []string{"nftables.conf", "include \"./*.nft\"\n"}
	for i := range maxSavedFiles + 1 {
		files = append(files, fmt.Sprintf("%d.nft", i), "table ip x { }\n")
	}
	if _, err := saved(t, files...); err == nil || !strings.Contains(err.Error(), "includes more than") {
		t.Errorf("of too many files: %v", err)
	}
	if _, err := saved(t, "nftables.conf", string(slices.Repeat([]byte(" "), maxSavedSize+1))); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("of too much text: %v", err)
	}
}
