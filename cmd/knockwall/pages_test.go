package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mvdan.cc/sh/v3/syntax"

	"github.com/knockwall/knockwall/ruleset"
)

// pages are the texts for users, by path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	paths := []string{"../../README.md", "../../SECURITY.md", "../../CONTRIBUTING.md", "../../ARCHITECTURE.md", "../../CHANGELOG.md", "../../internal/control/API.md"}
	more, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(more) < 4 {
		t.Fatalf("%q, %v", more, err)
	}
	texts := map[string]string{}
	for _, path := range append(paths, more...) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[path] = string(text)
	}
	return texts
}

// A first page that is too long is not read.
func TestTheFirstPageIsShort(t *testing.T) {
	if n := len(pages(t)["../../README.md"]); n > 9<<10 {
		t.Errorf("README.md has %d bytes, and should have %d at most", n, 9<<10)
	}
}

// Links between pages, and from pages to files, lead somewhere.
func TestLinksOfPagesLeadSomewhere(t *testing.T) {
	texts := pages(t)
	heading := regexp.MustCompile(`(?m)^#+ (.+)$`)
	notInAnchor := regexp.MustCompile(`[^a-z0-9_ -]`)
	for page, text := range texts {
		for _, link := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
			if strings.Contains(link[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(link[1], "#")
			path := page
			if file != "" {
				path = filepath.Join(filepath.Dir(page), file)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: %s leads nowhere", page, link[1])
			} else if anchor != "" && !slices.ContainsFunc(heading.FindAllStringSubmatch(texts[path], -1), func(m []string) bool {
				return strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-") == anchor
			}) {
				t.Errorf("%s: there is no heading for %s", page, link[1])
			}
		}
	}
}

// Every command on the pages that a user reads is one that the program takes: its name, its
// flags and the number of its arguments.
func TestCommandsOfPagesAreRight(t *testing.T) {
	seen := 0
	for page, text := range pages(t) {
		if strings.HasSuffix(page, "CHANGELOG.md") {
			continue
		}
		for _, line := range commandLines(text) {
			file, err := syntax.NewParser().Parse(strings.NewReader(line), "")
			if err != nil {
				continue // another language, or a part of a command
			}
			syntax.Walk(file, func(n syntax.Node) bool {
				call, ok := n.(*syntax.CallExpr)
				if !ok {
					return true
				}
				var words []string
				for _, w := range call.Args {
					words = append(words, plain(line, w))
				}
				at := slices.Index(words, "knockwall")
				if at < 0 || at > 0 && !(at == 1 && words[0] == "sudo") {
					return true
				}
				seen++
				if err := accepts(words[at+1:]); err != nil {
					t.Errorf("%s: %s: %v", page, line, err)
				}
				return true
			})
		}
	}
	if seen < 30 {
		t.Errorf("only %d commands were found", seen)
	}
}

// commandLines returns the lines of code blocks, and the code within text and tables.
func commandLines(text string) (lines []string) {
	for line := range strings.Lines(text) {
		if code, ok := strings.CutPrefix(line, "    "); ok {
			lines = append(lines, strings.TrimSpace(code))
			continue
		}
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(line, -1) {
			lines = append(lines, m[1])
		}
	}
	return lines
}

// plain returns a word without its quotes.
func plain(line string, w *syntax.Word) string {
	if s := w.Lit(); s != "" {
		return s
	}
	return strings.Trim(line[w.Pos().Offset():w.End().Offset()], `'"`)
}

// accepts returns an error if the program would refuse its arguments. Names in capitals stand
// for others.
func accepts(arguments []string) error {
	if len(arguments) == 0 || arguments[0] == "COMMAND" {
		return nil
	}
	root := rootCommand()
	c, rest, err := root.Find(arguments)
	if err != nil {
		return err
	}
	if c == root {
		return fmt.Errorf("there is no command %q", arguments[0])
	}
	c.InitDefaultHelpFlag()
	if err := c.ParseFlags(rest); err != nil {
		return err
	}
	if help, _ := c.Flags().GetBool("help"); help || len(c.Flags().Args()) == 0 {
		return nil // text names a command without its arguments
	}
	return c.ValidateArgs(c.Flags().Args())
}

// Rule files on the pages have no error but for files and secrets that this machine lacks.
func TestRuleFilesOfPagesAreRight(t *testing.T) {
	seen := 0
	for page, text := range pages(t) {
		for _, block := range regexp.MustCompile(`(?m)^    [a-z_]+ (?:"[a-z]+" )?\{.*\n(?:(?:    .*)?\n)*`).FindAllString(text, -1) {
			rules := strings.ReplaceAll(block, "\n    ", "\n")[4:]
			rules = strings.ReplaceAll(rules, "      ...\n", "")
			if !regexp.MustCompile(`(?m)^(?:door|wall|share) `).MatchString(rules) {
				rules = fmt.Sprintf("door \"example\" {\nports = [22]\n%s\n}\n", rules)
				if !regexp.MustCompile(`(?m)^(?:keys|otp|rolling|fwknop)\b`).MatchString(rules) {
					rules = strings.Replace(rules, "ports = [22]\n", "ports = [22]\nsequence = [4113, 1840, 9127]\n", 1)
				}
			}
			seen++
			path := filepath.Join(t.TempDir(), "rules.hcl")
			if err := os.WriteFile(path, []byte(rules), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, d := range ruleset.Review(path).Errors().Diagnostics {
				if d.Summary != "No secret" && !strings.Contains(d.Detail, "no such file") {
					t.Errorf("%s: %s: %s\n%s", page, d.Summary, d.Detail, rules)
				}
			}
		}
	}
	if seen < 6 {
		t.Errorf("only %d rule files were found", seen)
	}
}
