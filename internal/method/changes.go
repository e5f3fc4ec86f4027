package method

import (
	"fmt"
	"time"

	"github.com/knockwall/knockwall/internal/printable"
)

// Changes are what differs between two versions of a setting, in words for people and
// without secrets.
type Changes []string

// Value adds an attribute whose values differ. The values are in the words of rule files.
func (c *Changes) Value(name string, former, now any) {
	was, is := text(former), text(now)
	if was == is {
		return
	}
	if was == "" {
		was = "nothing"
	}
	if is == "" {
		is = "nothing"
	}
	*c = append(*c, fmt.Sprintf("%s is %s, was %s", name, is, was))
}

func text(value any) string {
	if d, ok := value.(time.Duration); ok {
		return printable.Time(d)
	}
	return fmt.Sprint(value)
}

// Hidden adds an attribute that differs, without its values.
func (c *Changes) Hidden(name string, isSame bool) {
	if !isSame {
		*c = append(*c, name+" is another")
	}
}

// mostNames is how many names a change of many lists. The others are counted.
const mostNames = 10

// Names adds what became of all of names: "keys: alice and bob are listed".
func (c *Changes) Names(what string, names []string, isSingular, isPlural string) {
	if len(names) == 0 {
		return
	}
	text := names[0]
	for i, name := range names[1:] {
		switch left := len(names) - 1 - i; {
		case i+1 == mostNames:
			*c = append(*c, fmt.Sprintf("%s: %s and %d more %s", what, text, left, isPlural))
			return
		case left == 1:
			text += " and " + name
		default:
			text += ", " + name
		}
	}
	verb := isSingular
	if len(names) > 1 {
		verb = isPlural
	}
	*c = append(*c, fmt.Sprintf("%s: %s %s", what, text, verb))
}
