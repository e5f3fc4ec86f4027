package secret_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"text/template"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/secret"
)

const key = "hipjazz"

// leaks reports whether a text has the key, in any usual encoding.
func leaks(text string) bool {
	text = strings.Join(strings.Fields(strings.ToLower(strings.ReplaceAll(text, "[", "[ "))), " ")
	numbers := func(format string) string {
		var each []string
		for _, c := range []byte(key) {
			each = append(each, fmt.Sprintf(format, c))
		}
		return strings.Join(each, " ")
	}
	for _, form := range []string{
		key,
		hex.EncodeToString([]byte(key)),
		"aglwamf6eg", // base64, in lower case
		numbers("%d"), numbers("%03d"), numbers("%x"), numbers("%#x"), numbers("%o"), numbers("%b"), numbers("%08b"), numbers("%c"), numbers("%q"), numbers("%u"),
		strings.ReplaceAll(numbers("%d"), " ", ", "), strings.ReplaceAll(numbers("%#x"), " ", ", "),
	} {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}

func TestLeaksAreSeen(t *testing.T) {
	for _, verb := range verbs() {
		text := fmt.Sprintf(verb, struct{ key []byte }{[]byte(key)})
		if strings.HasSuffix(verb, "v") && !leaks(text) {
			t.Errorf("%s of the key's bytes, %q, passes", verb, text)
		}
	}
	if text, _ := json.Marshal([]byte(key)); !leaks(string(text)) {
		t.Errorf("%s passes", text)
	}
}

// verbs are all letters as verbs, with the flags that change the output.
func verbs() []string {
	var all []string
	for _, flags := range []string{"", "+", "#", "-", " ", "0", "20", ".3", "+#"} {
		for c := 'a'; c <= 'z'; c++ {
			all = append(all, "%"+flags+string(c), "%"+flags+strings.ToUpper(string(c)))
		}
	}
	return all
}

// holder has secrets in all kinds of fields.
type holder struct {
	Shown    secret.Secret
	unshown  secret.Secret
	Pointer  *secret.Secret
	pointer  *secret.Secret
	Any      any
	any      any
	list     []secret.Secret
	Map      map[string]secret.Secret
	embedded struct{ secret.Secret }
}

func holding(s secret.Secret) holder {
	return holder{
		s, s, &s, &s, s, s,
		[]secret.Secret{s}, map[string]secret.Secret{"key": s}, struct{ secret.Secret }{s},
	}
}

func TestASecretIsPrintedAsOneByEachVerb(t *testing.T) {
	s := secret.New([]byte(key))
	for _, verb := range verbs() {
		text := fmt.Sprintf(verb, s)
		// For these verbs package fmt does not call Format: T prints the type, and p and w
		// are for pointers and errors.
		if text != "(secret)" && !strings.ContainsAny(verb, "Tpw") {
			t.Errorf("%s prints %q", verb, text)
		}
		if leaks(text) {
			t.Errorf("%s prints the key: %q", verb, text)
		}
	}
	if text := fmt.Sprint(s, secret.Secret{}); text != "(secret) (secret)" {
		t.Errorf("printed as %q", text)
	}
}

func TestNothingThatHasASecretShowsIt(t *testing.T) {
	s := secret.New([]byte(key))
	h := holding(s)
	for _, verb := range verbs() {
		for _, v := range []any{&s, h, &h, []secret.Secret{s}, []any{h, &h}, [1]holder{h}, map[string]holder{"h": h}} {
			if text := fmt.Sprintf(verb, v); leaks(text) {
				t.Errorf("%s of %T prints the key: %q", verb, v, text)
			}
			if text := fmt.Errorf(verb, v).Error(); leaks(text) {
				t.Errorf("%s of %T makes an error with the key: %q", verb, v, text)
			}
		}
	}
	if text := cmp.Diff(h, holding(secret.New([]byte("other"))), cmp.AllowUnexported(holder{})); text == "" || leaks(text) {
		t.Errorf("cmp.Diff is %q", text)
	}
}

func TestASecretIsMarshalledAsOne(t *testing.T) {
	s := secret.New([]byte(key))
	door := struct {
		Name    string
		Opening secret.Secret
		Closing *secret.Secret
	}{"ssh", s, &s}
	var log, lines bytes.Buffer
	slog.New(slog.NewTextHandler(&lines, nil)).Info("open", "opening", s, "door", door)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("open", "opening", s, "door", door)
	inJSON, err := json.Marshal(door)
	if err != nil {
		t.Fatal(err)
	}
	inXML, err := xml.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var page strings.Builder
	if err := template.Must(template.New("").Parse("{{.Opening}} {{printf `%x` .Opening}}")).Execute(&page, door); err != nil {
		t.Fatal(err)
	}
	for how, test := range map[string]struct{ got, want string }{
		"json":          {string(inJSON), `{"Name":"ssh","Opening":"(secret)","Closing":"(secret)"}`},
		"xml":           {string(inXML), "<Secret>(secret)</Secret>"},
		"text/template": {page.String(), "(secret) (secret)"},
	} {
		if test.got != test.want {
			t.Errorf("%s: %s, want %s", how, test.got, test.want)
		}
	}
	for _, text := range []string{log.String(), lines.String()} {
		if leaks(text) || !strings.Contains(text, "(secret)") {
			t.Errorf("logged as %s", text)
		}
	}
}

func TestTheKeyIsWhatItWasMadeOf(t *testing.T) {
	b := []byte(key)
	s := secret.New(b)
	clear(b)
	if string(s.Key()) != key || !s.IsSet() {
		t.Errorf("the key is %q", s.Key())
	}
	for _, unset := range []secret.Secret{{}, secret.New(nil), secret.New([]byte{})} {
		if unset.IsSet() || unset.Key() != nil {
			t.Errorf("the key is %q", unset.Key())
		}
	}
}

func TestEqual(t *testing.T) {
	all := []secret.Secret{
		{}, secret.New([]byte(key)), secret.New([]byte("hipjazy")), secret.New([]byte(key + "z")), secret.New([]byte{0}),
	}
	again := slices.Clone(all)
	again[1] = secret.New([]byte(key))
	for i, a := range all {
		for j, b := range again {
			if a.Equal(b) != (i == j) {
				t.Errorf("%d and %d: %t", i, j, a.Equal(b))
			}
		}
	}
}
