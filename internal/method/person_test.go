package method

import (
	"strings"
	"testing"
)

func TestThePersonOfAWindowGoesThereAndBack(t *testing.T) {
	long := strings.Repeat("ä", 100)
	for _, p := range []Person{
		{},
		{Name: "alice@laptop", Key: "SHA256:abc", Grant: "key"},
		{Name: "Alice A. Archer", Grant: "fwknop"},
		{Key: "SHA256:abc", Grant: "ca=abc,serial=7"},
		{Name: long, Key: "SHA256:" + strings.Repeat("a", 43), Grant: "ca=abcdefghijklmnop,serial=18446744073709551615"},
	} {
		text := p.Text()
		back := ParsePerson(text)
		if len(text) > maxText {
			t.Errorf("%q has %d bytes", text, len(text))
		}
		if p.Name == long && strings.HasPrefix(p.Name, back.Name) && len(back.Name) > 20 {
			back.Name = p.Name
		}
		if back != p {
			t.Errorf("%+v became %+v by way of %q", p, back, text)
		}
	}
	for _, text := range []string{"", "x", "x y", " "} {
		if p := ParsePerson(text); !p.IsZero() {
			t.Errorf("%q is %+v", text, p)
		}
	}
}
