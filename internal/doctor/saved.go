package doctor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/knockwall/knockwall/internal/printable"
)

// savedRulesets are the files that nftables.service loads at boot.
var savedRulesets = []string{"/etc/nftables.conf", "/etc/sysconfig/nftables.conf"}

// The limits for reading these files and their includes.
const (
	maxSavedFiles = 64
	maxSavedSize  = 4 << 20
)

// findSaved finds a copy of the wall's table in a saved ruleset.
func findSaved(h *Host) (findings []Finding, err error) {
	r := savedReader{table: h.Config.Wall.Table}
	for _, path := range savedRulesets {
		r.read(path)
	}
	for _, path := range r.found {
		findings = append(findings, Finding{Severity: Warning,
			Problem: fmt.Sprintf("%s has a copy of the wall's table inet %s. On Linux 6.9 and later, the whole file fails to load while knockwall runs, your own firewall included. "+
				"Loading it before knockwall starts installs outdated rules.", printable.Quote(path), r.table),
			Cure: fmt.Sprintf("Delete table inet %s from the file. To save a ruleset without it, run `knockwall down` and `nft list ruleset`, then start knockwall again.", r.table)})
	}
	return findings, errors.Join(r.failed...)
}

type savedReader struct {
	table  string
	seen   []string
	found  []string
	failed []error
}

func (r *savedReader) read(path string) {
	if slices.Contains(r.seen, path) {
		return
	}
	if len(r.seen) == maxSavedFiles {
		r.failed = append(r.failed, fmt.Errorf("the saved ruleset includes more than %d files: doctor did not read %s", maxSavedFiles, printable.Quote(path)))
		return
	}
	r.seen = append(r.seen, path)
	// Opening a named pipe would block.
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return
	}
	var b []byte
	if err == nil {
		b, err = readUpTo(path, maxSavedSize)
	}
	if err != nil {
		r.failed = append(r.failed, fmt.Errorf("searching a saved ruleset for the wall's table: %w", err))
		return
	}
	words := wordsOf(string(b))
	for i := range words {
		rest := words[i+1:]
		switch {
		case words[i] == "table" && len(rest) > 2 && rest[0] == "inet" && rest[1] == r.table && rest[2] == "{":
			if !slices.Contains(r.found, path) {
				r.found = append(r.found, path)
			}
		case words[i] == "include" && len(rest) > 0:
			pattern := strings.Trim(rest[0], `"'`)
			if !filepath.IsAbs(pattern) {
				pattern = filepath.Join(filepath.Dir(path), pattern)
			}
			included, _ := filepath.Glob(pattern)
			for _, file := range included {
				r.read(file)
			}
		}
	}
}

// wordsOf splits an nft script into words, without comments.
func wordsOf(script string) (words []string) {
	for line := range strings.Lines(script) {
		line, _, _ = strings.Cut(line, "#")
		words = append(words, strings.Fields(strings.NewReplacer("{", " { ", "}", " } ", ";", " ; ").Replace(line))...)
	}
	return words
}

// readUpTo reads a file. It returns an error if the file has more than that many bytes.
func readUpTo(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s has more than %d bytes", printable.Quote(path), most)
	}
	return b, err
}
