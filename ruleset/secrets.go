package ruleset

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/knockwall/knockwall/internal/ownership"
	"github.com/knockwall/knockwall/internal/secret"
)

// Where secrets come from. None of a secret's text gets into a diagnostic: excerpts show
// stars instead (hideSecrets), and what stands in a source's place is not told either, as
// it may be the secret itself.

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
	case (l.reader == reviewer || l.reader == rehearsing) && errors.Is(err, errNoCredentials):
		l.warnAt(e, "Secret not looked at", sentence(err))
	default:
		l.lackAt(e, "No secret", sentence(forbidden(err, "r")))
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
	return err != nil || ownership.Mode(info)&0o007 != 0
}

// errNoCredentials is why a credential is not there for who is no service.
var errNoCredentials = errors.New("credentials are systemd's, for the service alone (LoadCredential=): here are none")

func (l *Loaded) credential(_ hcl.Expression, name string) (secret.Secret, error) {
	if !credential.MatchString(name) || name == "." || name == ".." {
		return secret.Secret{}, errors.New("that is not the name of a credential: these are letters, digits, hyphens, underscores and dots")
	}
	folder := os.Getenv("CREDENTIALS_DIRECTORY")
	if folder == "" {
		return secret.Secret{}, errNoCredentials
	}
	s, err := secret.ReadFile(filepath.Join(folder, name))
	if errors.Is(err, fs.ErrNotExist) {
		return s, errors.New("the service has no credential of that name: add LoadCredential=NAME:/path/of/the/secret to the unit, and restart it")
	}
	return s, err
}

func (l *Loaded) secretFile(_ hcl.Expression, path string) (secret.Secret, error) {
	if !isWhole(path) {
		return secret.Secret{}, errors.New("that is not a whole path: it has to begin with /")
	}
	if !isPath(path) {
		return secret.Secret{}, errors.New("there is no such file, nor a folder that it could be in")
	}
	s, err := secret.ReadFile(path)
	if err == nil {
		err = ownership.Check(path, ownership.File)
	}
	return s, err
}

// isWhole reports whether it is a whole path, on this system or on Linux, for which a rule
// file is written.
func isWhole(name string) bool { return filepath.IsAbs(name) || path.IsAbs(name) }

// isPath reports whether it is a path of this host, and no secret that begins with /.
func isPath(path string) bool {
	if _, err := os.Lstat(path); err == nil {
		return true
	}
	folder := filepath.Dir(path)
	info, err := os.Stat(folder)
	return folder != "/" && (err == nil && info.IsDir() || errors.Is(err, fs.ErrPermission))
}

func (l *Loaded) environment(_ hcl.Expression, name string) (secret.Secret, error) {
	text := os.Getenv(name)
	if text == "" {
		return secret.Secret{}, errors.New("the environment has no variable of that name, or it is empty")
	}
	return secret.New([]byte(text)), nil
}
