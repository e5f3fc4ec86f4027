package method

import (
	"strings"
)

// maxText is the longest text of a person, in bytes: what fits into the comment of a set's
// element (NFTNL_UDATA_COMMENT_MAXLEN in libnftnl, less the NUL).
const maxText = 127

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
	text := field(p.Key) + " " + field(p.Grant) + " " + p.Name
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
