package migrate

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// TestWordsAreThoseOfAShell compares the words of a command with those of /bin/sh.
func TestWordsAreThoseOfAShell(t *testing.T) {
	for _, text := range []string{
		`a b  c`,
		"a\tb",
		`'a b' "c d" e\ f`,
		`a'b'"c"d`,
		`"a \" \\ \x b" '\'`,
		`'' ""`,
		`"rule family="ipv4" source address="192.0.2.1" accept"`,
		`--rule='rule family="ipv4" accept'`,
		`a#b c # d e`,
		`a=b {22,80} { 22 }`,
		`a~b a!b`,
		`'$HOME' '*' '~' "a;b" 'a&&b'`,
	} {
		words := wordsIn("x " + text)
		if words == nil {
			t.Errorf("%s: its words are not known", text)
			continue
		}
		out, err := exec.Command("/bin/sh", "-c", `for word in `+text+`
do printf '<%s>\n' "$word"; done`).Output()
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		var got strings.Builder
		for _, word := range words[1:] {
			got.WriteString("<" + word + ">\n")
		}
		if diff := cmp.Diff(string(out), got.String()); diff != "" {
			t.Errorf("%s (-sh +got):\n%s", text, diff)
		}
	}
}

// TestOnlyAPlainProgramNeedsNoShell lists commands that a rule file can hold word by word,
// and commands that a shell has to run.
func TestOnlyAPlainProgramNeedsNoShell(t *testing.T) {
	for _, text := range []string{"a b", "/bin/a 'x;y' ;", "a b # c; d", "a '$b' \"c d\""} {
		if c := commandOf(text); c.words == nil {
			t.Errorf("%q needs no shell", text)
		}
	}
	for _, text := range []string{
		"a; b", "a && b", "a | b", "a || b", "a &", "a > b", "(a)", "a $b", `a "$b"`, "a `b`", "a \"`b`\"", "a*", "a b?", "a [b]", "~/a", "A=b c", "! a",
		"bin/a", "cd /tmp", "%IP% a", `a "$(echo "it's")"`,
	} {
		if c := commandOf(text); c.shell == "" {
			t.Errorf("%q needs a shell, and became %q", text, c.words)
		}
	}
}

func TestWhatNoShellReadsIsNamed(t *testing.T) {
	for _, text := range []string{`a "b`, `a 'b`, `a "b\"`, `"`, "a &&", "a | ", "(a", "a )", "if a; then b", "a <<x", "`a", "$(a", ";;", strings.Repeat("(", 20<<10)} {
		s := readScript(text)
		if s.wrong == nil || len(s.steps) > 0 {
			t.Errorf("%.20q: %+v; no shell reads it", text, s)
		}
	}
}

// TestSourceReachesTheShell compares the output of a shell with the address as text, as
// knockd inserts it, with the output if the address is in the environment.
func TestSourceReachesTheShell(t *testing.T) {
	for _, text := range []string{
		`echo %IP%`,
		`echo a%IP%b %IP%, %IP%/32 "%IP%_"`,
		`echo '%IP%' 'a %IP% b' "'%IP%'" '"%IP%"'`,
		`echo \%IP% "\%IP%" '\%IP%' "\\%IP%" \\%IP%`,
		`echo "$(echo '%IP%' "%IP%" "$(echo '%IP%')")" '%IP%'`,
		"echo `echo '%IP%' %IP%` '%IP%'",
		`echo "$(echo ')' '%IP%')" '%IP%'`,
		`(echo '%IP%'; echo "a) '%IP%'") | grep '%IP%'`,
		`echo x | sed 's,x,"%IP%",'`,
		`case '%IP%' in *:*) echo 6 "%IP%" ;; *) echo 4 '%IP%' ;; esac`,
		`echo "${x:-%IP%}" ${x:-%IP%} "${x:-a}%IP%" a%IP%"%IP%"%IP%`,
		"echo \"`echo '%IP%'` %IP%\"",
	} {
		for _, source := range []string{"192.0.2.7", "2001:db8::7"} {
			want, err := exec.Command("/bin/sh", "-c", strings.ReplaceAll(text, placeholder, source)).CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v: %s", text, err, want)
			}
			through := throughEnvironment(text)
			c := exec.Command("/bin/sh", "-c", through)
			c.Env = append(os.Environ(), "KNOCKWALL_SOURCE="+source)
			got, err := c.CombinedOutput()
			if err != nil {
				t.Errorf("%s: %v: %s", through, err, got)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("%s became %s (-knockd +got):\n%s", text, through, diff)
			}
		}
	}
}

func TestEitherFamilyRunsItsOwnScript(t *testing.T) {
	c := eitherFamily("echo four %IP% # a comment", "")
	for source, want := range map[string]string{"192.0.2.7": "four 192.0.2.7\n", "2001:db8::7": ""} {
		run := exec.Command("/bin/sh", "-c", c.shell)
		run.Env = append(os.Environ(), "KNOCKWALL_SOURCE="+source)
		if got, err := run.CombinedOutput(); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", source, got, err, want)
		}
	}
}

// evaluate returns the value of a rule file's expression for a source.
func evaluate(t *testing.T, text string) string {
	t.Helper()
	e, diags := hclsyntax.ParseExpression([]byte(text), "", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatalf("%s: %v", text, diags)
	}
	v, diags := e.Value(&hcl.EvalContext{Variables: map[string]cty.Value{"source": cty.StringVal("192.0.2.7")}})
	if diags.HasErrors() || v.Type() != cty.String {
		t.Fatalf("%s: %v, %v", text, v, diags)
	}
	return v.AsString()
}

// FuzzArgument makes sure that an argument reads as the same text in a rule file, except
// for the source.
func FuzzArgument(f *testing.F) {
	for _, s := range []string{"", "%IP%", "$%IP%", "$$%IP%{", "%%IP%%{x}", "${source}", `"\`, "a\nb\x00\u2028", "$", "%{", "%IP%%IP%", "$%%IP%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !exact(s) || !exact(strings.ReplaceAll(s, placeholder, "192.0.2.7")) {
			t.Skip()
		}
		if got, want := evaluate(t, argument(s)), strings.ReplaceAll(s, placeholder, "192.0.2.7"); got != want {
			t.Errorf("%q is written %s, and reads as %q", s, argument(s), got)
		}
		if got := evaluate(t, quoted(s)); got != s {
			t.Errorf("%q is written %s, and reads as %q", s, quoted(s), got)
		}
	})
}
