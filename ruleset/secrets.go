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

// No text of a secret gets into a diagnostic. Excerpts show stars instead (words.hide).
// Messages do not quote the argument of credential, file or env either, as somebody may
// have written the secret there.

// credential matches the name of a credential: systemd.exec(5).
var credential = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,255}$`)

// secret reads a secret that a block needs: credential("name"), file("/path"), env("NAME"),
// or text in quotes. It returns an unset secret after an error.
func (l *Loaded) secret(e hcl.Expression, block hcl.Range) secret.Secret {
	if l.lacks(e, block, "No secret", `This block needs a secret: credential("name"), file("/path") or env("NAME").`) {
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
		l.failAt(e, "Not a source of secrets", `Write credential("name"), file("/path") or env("NAME").`)
		return secret.Secret{}
	}
	if len(call.Args) != 1 || call.ExpandFinal {
		l.failAt(e, "Not one argument", fmt.Sprintf(`%s takes one argument, in quotes.`, call.Name))
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
		l.warnAt(e, "Secret not looked at", sentence(err)+" If it is new or has changed, "+restarts)
	case errors.Is(err, errNoCredentials), errors.Is(err, errNoCredential):
		l.lackAt(e, "No secret", sentence(err)+" Add LoadCredential=NAME:/path/of/the/secret to the unit (systemctl edit knockwall), then "+restarts)
	default:
		l.lackAt(e, "No secret", sentence(forbidden(err, "r")))
	}
	return s
}

// plainSecret reads a secret that is text in the rule file, which others must not read.
func (l *Loaded) plainSecret(e hcl.Expression) secret.Secret {
	if _, quoted := e.(*hclsyntax.TemplateExpr); !quoted || !plain(e) {
		// HCL would normalise a number, which changes its digits.
		if _, said := e.(*hclsyntax.ExprSyntaxError); !said {
			l.failAt(e, "Not a source of secrets", `Write credential("name"), file("/path") or env("NAME"), or text in quotes in a file that others cannot read.`)
		}
		return secret.Secret{}
	}
	text, ok := l.value(e)
	name := e.Range().Filename
	switch {
	case !ok:
		return secret.Secret{}
	case text == "":
		l.failAt(e, "No secret", `The secret is empty. Write credential("name"), file("/path") or env("NAME").`)
	case l.isExposed(name):
		l.failAt(e, "Secret that others can read", fmt.Sprintf(
			`Others can read or write %s. Run chmod o= %[1]s, or keep the secret elsewhere: credential("name"), file("/path") or env("NAME").`, name))
	}
	return secret.New([]byte(text))
}

// isExposed reports whether users outside its group can access a file. It returns true for
// a file that it cannot look at.
func (l *Loaded) isExposed(name string) bool {
	info, err := os.Stat(name)
	return err != nil || ownership.Mode(info)&0o007 != 0
}

// errNoCredentials says that the process has no credentials: it is no systemd service, or its
// unit had none when it was started. errNoCredential says that it has others.
var (
	errNoCredentials = errors.New("this process has no credentials: systemd gives them to the service only (LoadCredential=)")
	errNoCredential  = errors.New("the service was started without a credential of that name")
)

// restarts is the end of a sentence about a credential that the daemon does not have yet.
const restarts = "restart the service: systemctl restart knockwall. Windows stay open meanwhile. " +
	"A reload is not enough, because systemd gives credentials to a service only when it starts."

func (l *Loaded) credential(_ hcl.Expression, name string) (secret.Secret, error) {
	if !credential.MatchString(name) || name == "." || name == ".." {
		return secret.Secret{}, errors.New("this is not the name of a credential: write letters, digits, hyphens, underscores and dots")
	}
	folder := os.Getenv("CREDENTIALS_DIRECTORY")
	if folder == "" {
		return secret.Secret{}, errNoCredentials
	}
	s, err := secret.ReadFile(filepath.Join(folder, name))
	if errors.Is(err, fs.ErrNotExist) {
		return s, errNoCredential
	}
	return s, err
}

func (l *Loaded) secretFile(_ hcl.Expression, path string) (secret.Secret, error) {
	if !isWhole(path) {
		return secret.Secret{}, errors.New("this is not an absolute path: it has to begin with /")
	}
	if !isPath(path) {
		return secret.Secret{}, errors.New("neither the file nor its folder exists")
	}
	s, err := secret.ReadFile(path)
	if err == nil {
		err = ownership.Check(path, ownership.File)
	}
	return s, err
}

// isWhole reports whether name is an absolute path on this system or on Linux, as rule
// files are written for Linux.
func isWhole(name string) bool { return filepath.IsAbs(name) || path.IsAbs(name) }

// isPath reports whether path is a path on this host, and not a secret that begins with /.
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
		return secret.Secret{}, errors.New("the environment has no variable with this name, or the variable is empty")
	}
	return secret.New([]byte(text)), nil
}
