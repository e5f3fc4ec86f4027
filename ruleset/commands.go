package ruleset

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Command is what is run when a door opens or has closed. There is no shell: the
// program gets its arguments as they are.
type Command struct {
	Arguments []Argument // the program first: an absolute path, or a name
	Timeout   time.Duration
}

// Argument is one argument of a command, in parts.
type Argument []Part

// Part is text, or the variable whose value stands there.
type Part struct{ Text, Variable string }

// Variables are the values that a command's arguments can ask for.
type Variables map[string]string

// variables are what arguments can ask for, and what for.
var variables = map[string]string{
	"door":   "the door's name",
	"source": "the address, or prefix, that it opens for",
	"port":   "the port of the last knock, such as 1840/tcp",
}

// Expand returns the arguments with the values put in.
func (c *Command) Expand(v Variables) []string {
	var arguments []string
	for _, a := range c.Arguments {
		var b strings.Builder
		for _, p := range a {
			b.WriteString(p.Text + v[p.Variable])
		}
		arguments = append(arguments, b.String())
	}
	return arguments
}

// The bounds of a command.
const (
	maxArguments  = 64
	maxCommandRun = 10 * time.Minute
)

func (l *Loaded) command(r *rawCommand) *Command {
	if r == nil {
		return nil
	}
	c := &Command{Timeout: 10 * time.Second}
	l.duration(r.Timeout, &c.Timeout, 100*time.Millisecond, maxCommandRun)
	if l.lacks(r.Command, r.Range, "No command", `It needs the program and its arguments: command = ["/usr/bin/logger", "open for ${source}"].`) {
		return c
	}
	arguments, diags := hcl.ExprList(r.Command)
	switch {
	case diags.HasErrors():
		if _, said := r.Command.(*hclsyntax.ExprSyntaxError); !said {
			l.failAt(r.Command, "Not a list", `A command is a list of the program and its arguments, and no shell reads it: ["/usr/bin/logger", "open for ${source}"].`)
		}
		return c
	case len(arguments) == 0:
		l.failAt(r.Command, "No command", `Write the program and its arguments: ["/usr/bin/logger", "open for ${source}"].`)
	case len(arguments) > maxArguments:
		l.failAt(r.Command, "Too many arguments", fmt.Sprintf("A command has %d arguments at most.", maxArguments))
	}
	for i, e := range arguments {
		a, ok := l.argument(e)
		if ok && i == 0 {
			l.program(e, a)
		}
		c.Arguments = append(c.Arguments, a)
	}
	return c
}

// program checks the first argument of a command.
func (l *Loaded) program(e hcl.Expression, a Argument) {
	if slices.ContainsFunc(a, func(p Part) bool { return p.Variable != "" }) {
		l.failAt(e, "Not a program", "Which program is run is for this file alone to say.")
		return
	}
	name := a.text()
	if name == "" || strings.HasSuffix(name, "/") || strings.Contains(name, "/") && !path.IsAbs(name) {
		l.failAt(e, "Not a program", "Write its whole path, from / on, or the mere name of one in the system's folders of programs.")
	}
}

func (a Argument) text() (text string) {
	for _, p := range a {
		text += p.Text
	}
	return text
}

// argument reads text that may ask for values, ${door}, ${source} and ${port}.
// Nothing else is computed.
func (l *Loaded) argument(e hcl.Expression) (Argument, bool) {
	parts := []hclsyntax.Expression{}
	switch e := e.(type) {
	case *hclsyntax.TemplateWrapExpr: // nothing but a value
		parts = append(parts, e.Wrapped)
	case *hclsyntax.TemplateExpr:
		parts = e.Parts
	case *hclsyntax.ScopeTraversalExpr:
		l.failAt(e, "Not a plain value", "Text stands in quotes"+l.suggest(e, `, and a value in ${ and }: "${%s}".`, "."))
		return nil, false
	default:
		text, ok := l.value(e)
		return l.bounded(e, Argument{{Text: text}}, ok)
	}
	var a Argument
	for _, part := range parts {
		if asked, ok := part.(*hclsyntax.ScopeTraversalExpr); ok {
			name := asked.Traversal.RootName()
			if _, known := variables[name]; !known || len(asked.Traversal) != 1 {
				l.failAt(asked, "No such value", "There are "+listOfVariables()+".")
				return nil, false
			}
			a = append(a, Part{Variable: name})
			continue
		}
		if !plain(part) {
			l.failAt(part, "Not a plain value", "Between ${ and } stands the name of a value: "+listOfVariables()+`. What is to stay as it is is written $${.`)
			return nil, false
		}
		text, ok := l.value(part)
		if !ok {
			return nil, false
		}
		a = append(a, Part{Text: text})
	}
	return l.bounded(e, a, true)
}

// bounded refuses what the kernel takes for no argument.
func (l *Loaded) bounded(e hcl.Expression, a Argument, ok bool) (Argument, bool) {
	if strings.ContainsRune(a.text(), 0) {
		l.failAt(e, "Not an argument", "No program can be given a NUL byte.")
		return nil, false
	}
	return a, ok
}

func listOfVariables() string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		names = append(names, "${"+name+"}, "+variables[name])
	}
	return strings.Join(names, "; ")
}
