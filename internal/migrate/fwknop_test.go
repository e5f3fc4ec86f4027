package migrate_test

import (
	"encoding/base64"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/knockwall/knockwall/internal/fwknop"
	"github.com/knockwall/knockwall/internal/migrate"
	"github.com/knockwall/knockwall/ruleset"
)

// fwknopFolder returns a folder of testdata/fwknop as /etc/fwknop.
func fwknopFolder(t testing.TB, name string) fstest.MapFS {
	t.Helper()
	all := fstest.MapFS{}
	root := filepath.Join("testdata", "fwknop", name)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		inside, err := filepath.Rel(root, path)
		all["etc/fwknop/"+filepath.ToSlash(inside)] = &fstest.MapFile{Data: read(t, path), Mode: 0o600}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

const accessPath = "/etc/fwknop/access.conf"

// importFwknop imports the access.conf of a folder. It returns the folder of the keys, too.
func importFwknop(t *testing.T, name string) (rules []byte, keys []migrate.KeyFile, folder string, err error) {
	t.Helper()
	files, folder := fwknopFolder(t, name), t.TempDir()
	text := files["etc/fwknop/access.conf"].Data
	if !migrate.IsFwknop(text) && name != "errors" {
		t.Error("it is not recognized")
	}
	rules, keys, err = migrate.ImportFwknop(accessPath, text, files, folder)
	for _, k := range keys {
		if err := os.WriteFile(filepath.Join(folder, k.Name), k.Text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return rules, keys, folder, err
}

func TestAccessFilesBecomeRuleFilesAsReviewed(t *testing.T) {
	for _, name := range []string{"people", "folder", "open", "odd", "commands", "narrow"} {
		t.Run(name, func(t *testing.T) {
			rules, keys, folder, err := importFwknop(t, name)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range keys {
				if secret := strings.TrimSpace(string(k.Text)); strings.Contains(string(rules), secret) {
					t.Errorf("the rule file has the key of %s", k.Name)
				}
			}
			path := filepath.Join(t.TempDir(), "rules.hcl")
			if err := os.WriteFile(path, rules, 0o600); err != nil {
				t.Fatal(err)
			}
			isLeft := strings.Contains(string(rules), "\n# door ")
			if l := ruleset.Load(path); l.Diagnostics.HasErrors() {
				t.Errorf("refused: %v\n%s", l.Diagnostics, rules)
			} else if len(l.Config.Doors) == 0 && !isLeft {
				t.Errorf("there is no door:\n%s", rules)
			}
			if isLeft { // it is valid once it is completed
				if err := os.WriteFile(path, []byte(completed(string(rules))), 0o600); err != nil {
					t.Fatal(err)
				}
				if l := ruleset.Load(path); l.Diagnostics.HasErrors() {
					t.Errorf("refused once it is completed: %v\n%s", l.Diagnostics, completed(string(rules)))
				}
			}
			compareGolden(t, filepath.Join("testdata", "fwknop", name+".hcl"), strings.ReplaceAll(string(rules), folder, migrate.SecretsFolder))
		})
	}
}

// completed returns a rule file in which doors that are comments are not comments.
func completed(rules string) string {
	var b strings.Builder
	within := false
	for line := range strings.Lines(rules) {
		within = within || strings.HasPrefix(line, "# door ")
		if within {
			line = strings.TrimPrefix(line, "# ")
		}
		if line == "}\n" {
			within = false
		}
		b.WriteString(line)
	}
	return b.String()
}

func TestErrorsOfAccessFilesAreToldWithTheirLines(t *testing.T) {
	rules, keys, _, err := importFwknop(t, "errors")
	if err == nil || rules != nil || keys != nil {
		t.Fatalf("no error; it became\n%s", rules)
	}
	compareGolden(t, filepath.Join("testdata", "fwknop", "errors.txt"), err.Error()+"\n")
	for _, secret := range []string{"9uBaXTpu", "not base64!", "1234567890"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("an error shows a key: %v", err)
		}
	}
}

// Passphrases become keys in base64, and keys stay as they are.
func TestKeysOfAccessFilesAreKept(t *testing.T) {
	_, keys, _, err := importFwknop(t, "people")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, k := range keys {
		key, err := fwknop.ParseKey([]byte(strings.TrimSpace(string(k.Text))), fwknop.MaxHMACKey)
		if err != nil {
			t.Errorf("%s: %v", k.Name, err)
		}
		got[k.Name] = string(key)
	}
	alice, _ := base64.StdEncoding.DecodeString("9uBaXTpu7gZxzxJWCBcc2jajIavpXPA847GX1ZYYGrY=")
	for name, want := range map[string]string{"alice.key": string(alice), "bob.key": "correct horse battery", "bob.hmac": "another passphrase"} {
		if got[name] != want {
			t.Errorf("%s has %q, want %q", name, got[name], want)
		}
	}
}

func TestWithoutAFolderNothingElseIsRead(t *testing.T) {
	text := fwknopFolder(t, "folder")["etc/fwknop/access.conf"].Data
	text = append(text, "SOURCE ANY\nOPEN_PORTS tcp/22\nKEY alice\nHMAC_KEY bob\n"...)
	rules, _, err := migrate.ImportFwknop("stdin", text, nil, migrate.SecretsFolder)
	if err != nil || !strings.Contains(string(rules), "which was not read") {
		t.Errorf("%v\n%s", err, rules)
	}
}

const oneStanza = "SOURCE ANY\nOPEN_PORTS tcp/22\nKEY alice\nHMAC_KEY bob\n"

// access imports an access.conf with other files of its folder.
func access(text string, others fstest.MapFS) (string, error) {
	others["etc/fwknop/access.conf"] = &fstest.MapFile{Data: []byte(text)}
	rules, _, err := migrate.ImportFwknop(accessPath, []byte(text), others, migrate.SecretsFolder)
	return string(rules), err
}

func TestAFileThatIncludesItselfIsRefused(t *testing.T) {
	for text, others := range map[string]fstest.MapFS{
		"%include access.conf\n": {}, "%include_folder .\n": {}, "%include people/../access.conf\n": {},
		"%include more.conf\n": {"etc/fwknop/more.conf": {Data: []byte("%include access.conf\n")}},
	} {
		_, err := access(text+oneStanza, others)
		if err == nil || strings.Count(err.Error(), "\n") > 0 || !strings.HasSuffix(err.Error(), "line 1: this line includes /etc/fwknop/access.conf, which leads here: remove the line") {
			t.Errorf("%q: %v", text, err)
		}
	}
	twice := fstest.MapFS{"etc/fwknop/more.conf": {Data: []byte(oneStanza)}}
	if _, err := access("%include more.conf\n%include more.conf\n", twice); err != nil {
		t.Errorf("a file that is included twice: %v", err)
	}
}

func TestErrorsOfAccessFilesHaveALimit(t *testing.T) {
	more := fstest.MapFS{"etc/fwknop/more.conf": {Data: []byte(strings.Repeat("wrong\n", 10_000))}}
	_, err := access(strings.Repeat("%include more.conf\n", 90), more)
	if err == nil || strings.Count(err.Error(), "\n") != 100 || !strings.HasSuffix(err.Error(), accessPath+": there are more errors: only the first 100 are shown") {
		t.Errorf("%v", err)
	}
}

func TestAByteOrderMarkIsNoPartOfAnAccessFile(t *testing.T) {
	text := "\ufeff" + oneStanza
	if rules, err := access(text, fstest.MapFS{}); err != nil || !strings.Contains(rules, "\ndoor ") || !migrate.IsFwknop([]byte(text)) {
		t.Errorf("%v\n%s", err, rules)
	}
}

func TestADaemonsFileThatCannotBeReadIsNoted(t *testing.T) {
	const told = "fwknopd.conf was not read: /etc/fwknop/fwknopd.conf is not"
	for want, others := range map[bool]fstest.MapFS{true: {"etc/fwknop/fwknopd.conf": {Mode: fs.ModeDir}}, false: {}} {
		if rules, err := access(oneStanza, others); err != nil || strings.Contains(rules, told) != want {
			t.Errorf("%v\n%s", err, rules)
		}
	}
}

// FuzzImportFwknop imports garbage. The result must be a valid rule file, or errors.
func FuzzImportFwknop(f *testing.F) {
	for _, name := range []string{"people", "folder", "open", "odd", "commands", "narrow", "errors"} {
		files := fwknopFolder(f, name)
		more := &fstest.MapFile{}
		if files["etc/fwknop/fwknopd.conf"] != nil {
			more = files["etc/fwknop/fwknopd.conf"]
		}
		f.Add(files["etc/fwknop/access.conf"].Data, more.Data)
	}
	f.Fuzz(func(t *testing.T, access, daemon []byte) {
		files := fstest.MapFS{
			"etc/fwknop/access.conf":  {Data: access},
			"etc/fwknop/fwknopd.conf": {Data: daemon},
		}
		rules, keys, err := migrate.ImportFwknop(accessPath, access, files, "/etc/\"${x}\"/%{y}")
		if err != nil {
			if rules != nil || keys != nil {
				t.Error("both an error and a result")
			}
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' && r != '\n' }) {
				t.Errorf("%q", err)
			}
			return
		}
		path := filepath.Join(t.TempDir(), "rules.hcl")
		if err := os.WriteFile(path, rules, 0o600); err != nil {
			t.Fatal(err)
		}
		// The keys are not there, which is all that may be wrong.
		for _, d := range ruleset.Load(path).Errors().Diagnostics {
			if d.Summary != "No secret" {
				t.Fatalf("%v\n%s", d, rules)
			}
		}
	})
}
