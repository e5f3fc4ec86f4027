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
		{Name: long, Key: "SHA256:" + strings.Repeat("a", 43), Grant: longestGrant},
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

// longestGrant is a grant of a certificate.
const longestGrant = "ca=abcdefghijklmnop,serial=18446744073709551615"

func TestALongOriginDoesNotPushThePersonOut(t *testing.T) {
	key, host := "SHA256:"+strings.Repeat("a", 43), strings.Repeat("h", 63)
	for _, test := range []struct {
		Person
		name   int // how much of the name stays at least
		origin int // and of the origin
	}{
		{Person{}, 0, 63},
		{Person{Name: "alice@laptop", Key: key, Grant: "key"}, 12, 50},
		{Person{Name: strings.Repeat("n", 64), Grant: "fwknop"}, 64, 50},
		{Person{Name: "alice", Key: key, Grant: longestGrant}, 5, 20},
		{Person{Name: strings.Repeat("n", 48), Key: key, Grant: longestGrant}, 15, leastOrigin},
	} {
		o := Opener{test.Person, host}
		text := o.Text()
		back := ParseOpener(text)
		if back.Key != o.Key || back.Grant != o.Grant || !strings.HasPrefix(o.Name, back.Name) || len(back.Name) < test.name ||
			!strings.HasPrefix(host, back.Origin) || len(back.Origin) < test.origin || len(text) > maxText {
			t.Errorf("%+v became %+v by way of %q", o, back, text)
		}
	}
	for _, o := range []Opener{{Origin: "host2"}, {Person{Name: "alice", Key: key, Grant: "key"}, "host2"}} {
		if back := ParseOpener(o.Text()); back != o {
			t.Errorf("%+v became %+v", o, back)
		}
	}
}
