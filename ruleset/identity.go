package ruleset

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/knockwall/knockwall/internal/ownership"
	"github.com/knockwall/knockwall/internal/secret"
	"github.com/knockwall/knockwall/internal/spa"
)

// DefaultIdentity returns the file of the host's private identity, unless the rule files at
// path name another source: the file "identity" beside them.
func DefaultIdentity(path string) string {
	folder := absolute(path)
	if info, err := os.Stat(folder); err == nil && !info.IsDir() || strings.HasSuffix(folder, ".hcl") {
		folder = filepath.Dir(folder)
	}
	return filepath.Join(folder, "identity")
}

// identity reads the host's private identity when the first door needs it.
type identity struct {
	wall    *Wall
	written hcl.Expression // nil: the default
	secret  secret.Secret  // if the rule files do not name a file
	done    bool           // it was read, or an error says why not
}

// read reads the attribute of the wall block: the path of a file, or a source of secrets.
func (i *identity) read(l *Loaded, e hcl.Expression, w *Wall) {
	if absent(e) {
		return
	}
	i.written, i.secret = e, secret.Secret{}
	if _, isCall := e.(*hclsyntax.FunctionCallExpr); isCall {
		w.IdentityPath = ""
		if i.secret = l.secret(e, e.Range()); !i.secret.IsSet() {
			i.done = true
		}
		return
	}
	name, ok := l.value(e)
	switch {
	case !ok:
		i.done = true
	case !isWhole(name):
		i.done = true
		l.failAt(e, "Not an absolute path", `Write the absolute path of the file that `+"`knockwall identity`"+` makes, or credential("name"), file("/path") or env("NAME").`)
	default:
		w.IdentityPath = name
	}
}

// of returns the identity. The first call reports an error if there is none.
func (i *identity) of(l *Loaded, block hcl.Range) *spa.Opener {
	if i.done {
		return i.wall.Identity
	}
	i.done = true
	at := block
	if i.written != nil {
		at = i.written.Range()
	}
	s := i.secret
	if path := i.wall.IdentityPath; path != "" {
		var err error
		s, err = secret.ReadFile(path)
		if err == nil {
			err = ownership.Check(path, ownership.File)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist) && l.reader == reviewer:
			l.warn("No identity", "Nobody can knock with a key before this host has an identity. Make one: knockwall identity.", &at)
			return nil
		case errors.Is(err, fs.ErrNotExist):
			l.lackIn(&at, "No identity", fmt.Sprintf("%s does not exist. Make this host's identity: knockwall identity.", path))
			return nil
		case err != nil:
			l.lackIn(&at, "Identity that cannot be used", sentence(forbidden(err, "r")))
			return nil
		}
	}
	var opener *spa.Opener
	parsed, err := spa.ParseIdentity(s.Key())
	if err == nil {
		opener, err = spa.NewOpener(parsed)
	}
	if err != nil {
		l.lackIn(&at, "Not an identity", sentence(fmt.Errorf("this is not the private identity of a host: %w", err)))
		return nil
	}
	i.wall.Identity = opener
	return opener
}

// namedFile reads a file that a rule file names, and remembers its public lines for
// diagnostics.
func (l *Loaded) namedFile(e hcl.Expression, path string, most int, isPublic func(line string) bool) ([]byte, bool) {
	if !isWhole(path) {
		l.failAt(e, "Not an absolute path", "Write the absolute path of the file, which begins with /.")
		return nil, false
	}
	text, err := readAtMost(path, most)
	if err == nil {
		err = ownership.Check(path, ownership.File)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && l.reader == reviewer:
		l.warnAt(e, "No such file", fmt.Sprintf("%s does not exist. The daemon does not start without it.", path))
		return nil, false
	case err != nil:
		l.lackAt(e, "File that cannot be used", sentence(forbidden(err, "r")))
		return nil, false
	}
	shown := make([]byte, 0, len(text))
	for line := range bytes.Lines(text) {
		if content := bytes.TrimRight(line, "\r\n"); !isPublic(string(content)) {
			line = append(bytes.Repeat([]byte("*"), len(content)), line[len(content):]...)
		}
		shown = append(shown, line...)
	}
	l.named[path], l.shown[path] = true, shown
	return text, true
}

// readAtMost reads a regular file.
func readAtMost(path string, most int) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err == nil && len(text) > most {
		err = fmt.Errorf("%s has more than %d MiB", path, most>>20)
	}
	return text, err
}
