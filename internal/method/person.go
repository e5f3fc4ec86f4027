package method

import "strings"

// maxText is the longest text of a person, in bytes: what fits into the comment of a set's
// element (NFTNL_UDATA_COMMENT_MAXLEN in libnftnl, less the NUL).
const maxText = 127

// Opener is who has opened a window.
type Opener struct {
	Person
	// Origin is the other host that has told of the window; "" if it was opened here. It is a
	// name without blanks.
	Origin string
}

// origin is the mark before an origin in the text of an opener.
const origin = "@"

// leastOrigin is how much of an origin stays at least, in bytes. With that the longest key
// and grant still fit.
const leastOrigin = 8

// Text returns the opener as one line for [ParseOpener]. The end of a long origin is cut off
// first: the person decides how long the door stays open, and of the origin only whether
// there is one.
func (o Opener) Text() string {
	text := o.Person.Text()
	if o.Origin == "" {
		return text
	}
	room := max(maxText-len(origin+" "+text), leastOrigin)
	return cut(origin + o.Origin[:min(len(o.Origin), room)] + " " + text)
}

// ParseOpener parses the result of Text. Anything else is nobody in particular, here.
func ParseOpener(text string) (o Opener) {
	if rest, ok := strings.CutPrefix(text, origin); ok {
		o.Origin, text, _ = strings.Cut(rest, " ")
	}
	o.Person = ParsePerson(text)
	return o
}

// none stands for an empty field in the text of a person.
const none = "-"

// IsZero reports whether this is nobody in particular.
func (p Person) IsZero() bool { return p == Person{} }

// Text returns the person as one line for [ParsePerson], with the end of a long name cut
// off. It is empty for nobody in particular.
func (p Person) Text() string {
	if p.IsZero() {
		return ""
	}
	field := func(s string) string {
		if s == "" {
			return none
		}
		return s
	}
	return cut(field(p.Key) + " " + field(p.Grant) + " " + p.Name)
}

// cut cuts off the end of a long text.
func cut(text string) string {
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "")
	}
	return text
}

// ParsePerson parses the result of Text. Anything else is nobody in particular.
func ParsePerson(text string) Person {
	key, rest, ok := strings.Cut(text, " ")
	grant, name, also := strings.Cut(rest, " ")
	if !ok || !also {
		return Person{}
	}
	if key == none {
		key = ""
	}
	if grant == none {
		grant = ""
	}
	return Person{Name: name, Key: key, Grant: grant}
}
