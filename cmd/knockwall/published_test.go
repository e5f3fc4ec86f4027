//go:build linux && !client

package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/internal/method/fixed"
	"github.com/knockwall/knockwall/internal/packet"
)

// knocks matches three or more ports in a row, as rule files, lists and commands have them.
var knocks = regexp.MustCompile(`(?:^|[^\w.:/-])((?:"?[1-9]\d{3,4}(?:[:/](?:tcp|udp))?"?(?:,\s*|\s+)){2,}"?[1-9]\d{3,4}(?:[:/](?:tcp|udp))?"?)`)

// published returns the texts that users read, by their places.
func published(t *testing.T) map[string]string {
	t.Helper()
	const root = "../.."
	texts := map[string]string{}
	notRead := []string{".git", "build", "integration", "testdata", "third_party"}
	kinds := []string{".md", ".hcl", ".1", ".5", ".8"}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && slices.Contains(notRead, e.Name()):
			return fs.SkipDir
		case e.IsDir() || !slices.Contains(kinds, filepath.Ext(path)):
			return nil
		}
		text, err := os.ReadFile(path)
		texts[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commands() {
		texts["the help of "+c.CommandPath()] = c.Long + "\n" + c.Example + "\n" + c.UsageString()
	}
	return texts
}

// check warns of every sequence that a reader of the manuals knows, and init chooses none of
// their knocks. A list in package fixed names them.
func TestEachSequenceThatIsPublishedIsListed(t *testing.T) {
	found := 0
	for place, text := range published(t) {
		for _, match := range knocks.FindAllStringSubmatch(text, -1) {
			var steps []packet.Port
			for _, word := range strings.FieldsFunc(match[1], func(r rune) bool { return strings.ContainsRune(", \t\n\"", r) }) {
				p, err := packet.ParsePort(word)
				if err != nil {
					t.Fatalf("%s: %q: %v", place, match[1], err)
				}
				steps = append(steps, p)
			}
			// Before the knocks may be the port to connect to.
			if !slices.ContainsFunc(tails(steps), fixed.IsPublished) {
				t.Errorf("%s has the sequence %s, which is not in the list of package fixed", place, match[1])
			}
			found++
		}
	}
	const least = 20
	if found < least {
		t.Errorf("%d sequences were found: the texts have more", found)
	}
}

// tails returns the steps from each place on.
func tails(steps []packet.Port) (all [][]packet.Port) {
	for i := range steps {
		all = append(all, steps[i:])
	}
	return all
}
