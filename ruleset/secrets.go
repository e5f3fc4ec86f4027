package ruleset

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/knockwall/knockwall/internal/secret"
)

// Where secrets come from. None of a secret's text gets into a diagnostic: of a line
// that one is written in, the excerpt shows stars instead (hideSecrets).

// credential is what systemd.exec(5) takes for the name of one.
var credential = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,255}$`)

// secret evaluates credential("name"), file("/path"), env("NAME"), or text, in a block
// that needs it.
func (l *Loaded) secret(e hcl.Expression, block hcl.Range) secret.Secret {
	if l.lacks(e, block, "No secret", `It needs one: credential("name"), file("/path") or env("NAME").`) {
		return secret.Secret{}
	}
	call, ok := e.(*hclsyntax.FunctionCallExpr)
	if !ok {
		return l.plainSecret(e)
	}
	sources := map[string]func(hcl.Expression, string) (secret.Secret, error){
		"credential": l.credential, "file": l.secretFile, "env": l.environment,
	}
	read, ok := sources[call.Name]
	if !ok {
		l.failAt(e, "Not where secrets come from", `Write credential("name"), file("/path") or env("NAME").`)
		return secret.Secret{}
	}
	if len(call.Args) != 1 || call.ExpandFinal {
		l.failAt(e, "Not one name", fmt.Sprintf(`%s takes one name, in quotes.`, call.Name))
		return secret.Secret{}
	}
	name, ok := l.value(call.Args[0])
	if !ok {
		return secret.Secret{}
	}
	s, err := read(call.Args[0], name)
	switch {
	case err == nil:
	case l.elsewhere && errors.Is(err, errNoCredentials):
		l.warnAt(e, "Secret not looked at", sentence(err))
	default:
		l.failAt(e, "No secret", sentence(err))
	}
	return s
}

// plainSecret takes text for a secret, in a file that others cannot read.
func (l *Loaded) plainSecret(e hcl.Expression) secret.Secret {
	if _, quoted := e.(*hclsyntax.TemplateExpr); !quoted || !plain(e) {
		// A number would be read as one, and be written otherwise.
		if _, said := e.(*hclsyntax.ExprSyntaxError); !said {
			l.failAt(e, "Not where secrets come from", `Write credential("name"), file("/path") or env("NAME"), or text in quotes in a file that others cannot read.`)
		}
		return secret.Secret{}
	}
	text, ok := l.value(e)
	name := e.Range().Filename
	switch {
	case !ok:
		return secret.Secret{}
	case text == "":
		l.failAt(e, "No secret", `It is empty. Write credential("name"), file("/path") or env("NAME").`)
	case l.isExposed(name):
		l.failAt(e, "Secret that others can read", fmt.Sprintf(
			`Others can read or write %s: chmod o= %[1]s, or keep the secret elsewhere, as credential("name"), file("/path") or env("NAME").`, name))
	}
	return secret.New([]byte(text))
}

// isExposed reports whether others can read or write a rule file.
func (l *Loaded) isExposed(name string) bool {
	info, err := os.Stat(name)
	return err != nil || info.Mode().Perm()&0o007 != 0
}

// errNoCredentials is why a credential is not there for who is no service.
var errNoCredentials = errors.New("credentials are systemd's, for the service alone (LoadCredential=): here are none")

func (l *Loaded) credential(_ hcl.Expression, name string) (secret.Secret, error) {
	if !credential.MatchString(name) || name == "." || name == ".." {
		return secret.Secret{}, fmt.Errorf("%q is not the name of a credential: these are letters, digits, hyphens, underscores and dots", name)
	}
	folder := os.Getenv("CREDENTIALS_DIRECTORY")
	if folder == "" {
		return secret.Secret{}, errNoCredentials
	}
	s, err := secret.ReadFile(filepath.Join(folder, name))
	if errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("the service has no credential %q: add LoadCredential=%[1]s:/path/of/the/secret to the unit, and restart it", name)
	}
	return s, err
}

func (l *Loaded) secretFile(_ hcl.Expression, path string) (secret.Secret, error) {
	if !filepath.IsAbs(path) {
		return secret.Secret{}, fmt.Errorf("%q is not a whole path: it has to begin with /", path)
	}
	return secret.ReadFile(path)
}

func (l *Loaded) environment(_ hcl.Expression, name string) (secret.Secret, error) {
	text := os.Getenv(name)
	if text == "" {
		return secret.Secret{}, fmt.Errorf("the environment has no %q, or it is empty", name)
	}
	return secret.New([]byte(text)), nil
}

// assigned is where a secret is written, or where it comes from: the whole of what
// follows on the line.
var assigned = regexp.MustCompile(`(?m)\b(?:open_|close_)?secret"?[ \t]*[=:][ \t]*(.*)$`)

// called is how a secret is named that is not in the file, rightly or not.
var called = regexp.MustCompile(`^[a-z_]+\(`)

// hideSecrets returns the text of a rule file with stars in place of the secrets that
// stand in it, of whatever is on their lines after the = to be sure, as a file that is
// wrong can be wrong anywhere.
func hideSecrets(text []byte) []byte {
	hidden := text
	for _, at := range assigned.FindAllSubmatchIndex(text, -1) {
		first, last := at[2], at[3]
		if called.Match(text[first:last]) {
			continue
		}
		if marker, isHeredoc := bytes.CutPrefix(text[first:last], []byte("<<")); isHeredoc {
			marker = bytes.TrimSpace(bytes.TrimPrefix(marker, []byte("-")))
			if n := bytes.Index(text[last:], append([]byte("\n"), marker...)); len(marker) > 0 && n >= 0 {
				last += n
			} else {
				last = len(text)
			}
		}
		if &hidden[0] == &text[0] {
			hidden = bytes.Clone(text)
		}
		for i := first; i < last; i++ {
			if hidden[i] != '\n' {
				hidden[i] = '*'
			}
		}
	}
	return hidden
}
