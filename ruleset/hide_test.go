package ruleset

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// mistakes are lines with a secret, %s, as somebody may write it by mistake in a block that
// needs one.
var mistakes = map[string]string{
	"a mistyped name":               `sercet = "%s"`,
	"another name":                  `password = "%s"`,
	"capitals":                      `OPEN_SECRET = "%s"`,
	"no =":                          `open_secret "%s"`,
	"no =, no quotes":               `secret %s`,
	"a colon":                       `secret: "%s"`,
	"a name in quotes":              `"secret" = "%s"`,
	"a name in quotes, mistyped":    `"sercet": "%s"`,
	"the next line":                 "open_secret =\n  \"%s\"",
	"the next line, no quotes":      "open_secret =\n  %s",
	"the next line, base64":         "open_secret =\n  %s=",
	"the next line, no =":           "secret\n\"%s\"",
	"no quotes":                     `open_secret = %s`,
	"single quotes":                 `open_secret = '%s'`,
	"quotes of typographers":        `open_secret = “%s”`,
	"a quote that is missing":       `open_secret = "%s`,
	"the first quote is missing":    `open_secret = %s"`,
	"an escape":                     `open_secret = "\%s"`,
	"an escape at its end":          `open_secret = "%s\"`,
	"a value":                       `open_secret = "${%s}"`,
	"a control":                     `open_secret = "%%{%s}"`,
	"credential":                    `open_secret = credential("%s")`,
	"credential of a path":          `open_secret = credential("/%s")`,
	"file":                          `open_secret = file("%s")`,
	"file that begins with /":       `open_secret = file("/%s")`,
	"file in a folder that is none": `open_secret = file("/%s/x")`,
	"env":                           `open_secret = env("%s")`,
	"a source, no quotes":           `open_secret = env(%s)`,
	"a source of two":               `open_secret = env("a", "%s")`,
	"an unknown source":             `open_secret = vault("%s")`,
	"a source of that name":         `open_secret = %s("a")`,
	"a source without parentheses":  `open_secret = file "%s"`,
	"a list":                        `open_secret = ["%s"]`,
	"a list of several lines":       "open_secret = [\n\"a\",\n\"%s\"\n]",
	"an object":                     `open_secret = { a = "%s" }`,
	"an index":                      `open_secret = a.%s.1.2`,
	"twice":                         "open_secret = \"%s\"\nopen_secret = \"%[1]s\"",
	"a port":                        `port = "%s"`,
	"ports":                         `ports = "%s"`,
	"a length":                      `length = "%s"`,
	"a length that is a list":       `length = ["%s"]`,
	"a step":                        `step = "%s"`,
	"a skew, no quotes":             `skew = %s`,
	"a block":                       `secret { value = "%s" }`,
	"a block of that name":          `secret "%s" {}`,
	"a label":                       "secret \"%s\" {\n}",
	"two on a line":                 `port = 2000 open_secret = "%s"`,
	"in a comment":                  `skew = "1x" # secret = "%s"`,
	"in a comment of another kind":  `skew = "1x" /* "%s" */`,
	"a heredoc":                     "open_secret = <<EOT\n%s\nEOT",
	"a heredoc without an end":      "open_secret = <<EOT\n%s",
	"a heredoc that is indented":    "open_secret = <<-EOT\n  ${%s}\n  EOT",
	"a NUL":                         "open_secret = \"%s\x00\"",
	"what is no UTF-8":              "open_secret = \"%s\xff\"",
	"a brace":                       `open_secret = "}%s"`,
	"a brace, no quotes":            `open_secret = }%s`,
	"a brace and words":             `open_secret = "} window = "%s"`,
	"nothing else":                  `%s`,
	"nothing else, in quotes":       `"%s"`,
	"an addition":                   `open_secret = "a" + "%s"`,
	"a condition":                   `open_secret = true ? "%s" : "b"`,
	"a comma":                       `open_secret = "a", "%s"`,
	"a backquote":                   "open_secret = `%s`",
	"a full-width =":                `open_secret ＝ "%s"`,
	"a second value":                `open_secret = "a" "%s"`,
	"a second block":                "}\notp {\nsercet = \"%s\"",
}

// places are the places of mistakes in a file.
var places = map[string]string{
	"otp":           "door \"d\" {\nports = [22]\notp {\nport = \"2000/udp\"\n%s\n}\n}\n",
	"fwknop":        "door \"d\" {\nports = [22]\nfwknop \"alice\" {\n%s\n}\n}\n",
	"a label":       "door \"d\" {\nports = [22]\nfwknop \"qzqzjazz\" {\n%s\n}\nfwknop \"qzqzjazz\" {}\nfwknop \"a\" \"qzqzjazz\" {}\n}\n",
	"addresses":     "door \"d\" {\nports = [22]\nfwknop \"a\" {\nfrom = [\"qzqzjazz\"]\nexpires = \"qzqzjazz\"\nhmac=\"qzqzjazz\"\nsource=\"qzqzjazz\"\n%s\n}\n}\n",
	"rolling":       "door \"d\" {\nports = [22]\nrolling {\n%s\n}\n}\n",
	"mistyped":      "door \"d\" {\nports = [22]\nsequence = [4113, 1840, 27911]\nopt {\n%s\n}\n}\n",
	"on one line":   "door \"d\" {\nports = [22]\notp { %s }\n}\n",
	"no brace":      "door \"d\" {\nports = [22]\notp\n%s\n}\n}\n",
	"brace below":   "door \"d\" {\nports = [22]\notp\n{\n%s\n}\n}\n",
	"never closed":  "door \"d\" {\nports = [22]\notp {\n%s\n",
	"an open list":  "door \"d\" {\nports = [22\notp {\n%s\n}\n}\n",
	"the top":       "otp {\n%s\n}\n",
	"the very top":  "%s\n",
	"after a quote": "door \"d\" {\nports = [22, \"23]\notp {\n%s\n}\n}\n",
}

func TestNoMistakeShowsASecret(t *testing.T) {
	const key = "qzqzjazz"
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	for place, around := range places {
		for mistake, text := range mistakes {
			if place == "the very top" && (mistake == "a port" || mistake == "ports") {
				continue // of a wall or a door: no secret
			}
			file := fmt.Sprintf(around, fmt.Sprintf(text, key))
			path := writePrivate(t, file)
			for _, l := range []*Loaded{Load(path), Review(path)} {
				asJSON, err := json.Marshal(l.Diagnostics)
				if err != nil {
					t.Fatal(err)
				}
				for _, out := range []string{diagnosticText(t, l), l.Diagnostics.Error(), string(asJSON)} {
					if strings.Contains(out, key) {
						t.Errorf("%s, in %s: it is shown:\n%s\nof\n%s", mistake, place, out, file)
					}
				}
			}
		}
	}
}

// Mistakes outside blocks with secrets are shown unchanged.
func TestWhatIsNoSecretIsShown(t *testing.T) {
	for _, line := range []string{
		`ports = [22, "70000"]`, `  window         = "31x"`, `sequence=[7000,"8000/udq"]`,
		`source_prefix = { ipv4 = 33, ipv6 = 0 }`, `to = ["2001:db8::/129"]`, `traps = "a b"`,
		`command = ["curl", "-H", "a: \"b\" // c", "${door}"]`, `door "a b" {`, `on_open {`, `wall {`,
		`skew = "1h5m"`, `port   = 2000`, `ports = "1024-65535/udp"`,
	} {
		if shown := string(ruleWords.hide([]byte(line))); shown != line && !ruleWords.plain[word.FindString(line)] {
			t.Errorf("%s is shown as %s", line, shown)
		}
		if in := "otp {\n" + line; ruleWords.plain[word.FindString(line)] && !strings.Contains(line, "[") && string(ruleWords.hide([]byte(in))) != in {
			t.Errorf("in otp, %s is shown as %s", line, ruleWords.hide([]byte(in)))
		}
	}
	list := "ports = [\n  22, # ssh\n  \"70000\",\n]\nwindow = \"30s\"\n"
	if shown := string(ruleWords.hide([]byte(list))); shown != strings.ReplaceAll(list, "# ssh", "     ") {
		t.Errorf("a list is shown as\n%s", shown)
	}
}

// secretLine matches a line with a marked secret that does not follow the name of another
// attribute.
var secretLine = regexp.MustCompile(`(?m)^[ \t]*"?(?:open_|OPEN_)?(?:secret|SECRET|sercet|password|key)(.*)qzqzjazz.*$`)

// checkHidden makes sure that no secret of a secretLine is shown.
func checkHidden(t *testing.T, text []byte, said string) {
	t.Helper()
	shown := ruleWords.hide(text)
	if len(shown) != len(text) || bytes.Count(shown, []byte("\n")) != bytes.Count(text, []byte("\n")) {
		t.Fatalf("other lines are shown of %q: %q", text, shown)
	}
	secrets := secretLine.FindAllSubmatch(text, -1)
	if len(secrets) != bytes.Count(text, []byte("qzqzjazz")) {
		return // one of them is somewhere else
	}
	for _, line := range secrets {
		if regexp.MustCompile(`[A-Za-z]`).Match(line[1]) {
			return // something else begins before it
		}
	}
	if bytes.Contains(shown, []byte("qzqzjazz")) || strings.Contains(said, "qzqzjazz") {
		t.Fatalf("a secret of %q is shown: %q; %s", text, shown, said)
	}
}

// Somebody may write the private identity in place of the public one, or of its file.
func TestAPrivateIdentityIsNotShown(t *testing.T) {
	for _, text := range []string{
		"wall {\n  identity = \"kw1-private:hipjazz\"\n}",
		"wall {\n  identity = kw1-private:hipjazz\n}",
		"wall {\n  trusted = [\n    \"kw1-private:hipjazz\",\n  ]\n}",
		"kw1-private:hipjazz",
	} {
		if shown := string(ruleWords.hide([]byte(text))); strings.Contains(shown, "hipjazz") {
			t.Errorf("%s\nis shown as\n%s", text, shown)
		}
	}
}
