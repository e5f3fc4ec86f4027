package printable_test

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/printable"
)

func TestEachWayToShowText(t *testing.T) {
	for s, want := range map[string]struct{ columns, lines, escape, quote string }{
		"":               {"", "", "", ""},
		`grün "a" \`:     {`grün "a" \`, `grün "a" \`, `grün "a" \`, `grün "a" \`},
		"a\tb":           {"a    b", "a\tb", "a b", `"a\tb"`},
		"a\nb":           {"a\ufffdb", "a\nb", `a\nb`, `"a\nb"`},
		"a\r\n":          {"a\ufffd", "a\ufffd\n", `a\r\n`, `"a\r\n"`},
		"\x1b[31m":       {"\ufffd[31m", "\ufffd[31m", `\x1b[31m`, `"\x1b[31m"`},
		"a\xffb":         {"a\ufffdb", "a\ufffdb", `a\xffb`, `"a\xffb"`},
		"a\ufffdb":       {"a\ufffdb", "a\ufffdb", "a\ufffdb", "\"a\ufffdb\""},
		"a\u202eb\u00a0": {"a\ufffdb\ufffd", "a\u202eb\u00a0", `a\u202eb\u00a0`, `"a\u202eb\u00a0"`},
		"it's\x00":       {"it's\ufffd", "it's\ufffd", `it's\x00`, `"it's\x00"`},
	} {
		if got := printable.Columns(s); got != want.columns {
			t.Errorf("Columns(%q) = %q, want %q", s, got, want.columns)
		}
		if got := printable.Lines([]byte(s)); got != want.lines {
			t.Errorf("Lines(%q) = %q, want %q", s, got, want.lines)
		}
		if got := printable.Escape(s); got != want.escape {
			t.Errorf("Escape(%q) = %q, want %q", s, got, want.escape)
		}
		if got := printable.Quote(s); got != want.quote {
			t.Errorf("Quote(%q) = %q, want %q", s, got, want.quote)
		}
	}
}

func TestNoByteGivesOrdersToATerminal(t *testing.T) {
	var all []byte
	for i := range 256 {
		all = append(all, byte(i), 'a')
	}
	for r := rune(0x80); r < 0x3000; r++ {
		all = utf8.AppendRune(all, r)
	}
	s := string(all)
	for what, shown := range map[string]string{"Columns": printable.Columns(s), "Escape": printable.Escape(s), "Quote": printable.Quote(s)} {
		if i := strings.IndexFunc(shown, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("%s leaves %q", what, shown[i:i+1])
		}
	}
	if strings.ContainsFunc(printable.Lines(all), func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }) {
		t.Error("Lines leaves a control character")
	}
}

func TestWrap(t *testing.T) {
	for _, tt := range []struct {
		s    string
		want []string
	}{
		{"", []string{""}},
		{"one two", []string{"one two"}},
		{"one two t", []string{"one two t"}},
		{"one two th", []string{"one two", "th"}},
		{"eins zwei drei vier", []string{"eins zwei", "drei vier"}},
		{"a verylongword b", []string{"a", "verylongword", "b"}},
		{"verylongword b", []string{"verylongword", "b"}},
		{"  a  b c    ", []string{"  a  b c"}},
		{"  a  b     cd", []string{"  a  b", "cd"}},
		{"größe füße", []string{"größe", "füße"}},
		{"füße füß", []string{"füße füß"}},
		{"one\n\ntwo three\n", []string{"one", "", "two three", ""}},
	} {
		if diff := cmp.Diff(tt.want, printable.Wrap(tt.s, 9)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.s, diff)
		}
	}
}

func FuzzWrap(f *testing.F) {
	f.Add("a verylongword b  c\n d", 9)
	f.Add("", 0)
	f.Fuzz(func(t *testing.T, s string, columns int) {
		lines := printable.Wrap(s, columns)
		words := func(s string) []string {
			return strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '\n' })
		}
		if got := strings.Join(lines, "\n"); !slices.Equal(words(got), words(s)) {
			t.Errorf("%q became %q", s, got)
		}
		for _, line := range lines {
			if utf8.RuneCountInString(line) > columns && len(words(line)) > 1 {
				t.Errorf("%q has more than %d columns", line, columns)
			}
		}
	})
}

func TestCut(t *testing.T) {
	for most, want := range []string{"", "…", "ü…", "üb…", "über"} {
		if got := printable.Cut("über", most); got != want {
			t.Errorf("to %d characters it is %q, want %q", most, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range []string{"no doors", "1 door", "2 doors"} {
		if got := printable.Count(n, "door"); got != want {
			t.Errorf("Count(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestTime(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 5 * time.Minute: "5m", 2 * time.Hour: "2h", 90 * time.Minute: "1h30m", 10 * time.Hour: "10h", -time.Minute: "-1m",
		24*time.Hour - 2*time.Second: "23h59m58s", time.Hour + 10*time.Second: "1h0m10s", 1500 * time.Millisecond: "1.5s", 100 * time.Minute: "1h40m",
	} {
		if got := printable.Time(d); got != want {
			t.Errorf("Time(%d) = %q, want %q", d, got, want)
		}
	}
}
