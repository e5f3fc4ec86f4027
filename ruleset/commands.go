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

// Command is the command that runs when a door opens or after it has closed. It runs
// without a shell: the program gets its arguments unchanged.
type Command struct {
	Arguments []Argument // the program first: an absolute path, or a name
	Timeout   time.Duration
}

// Argument is one argument of a command, in parts.
type Argument []Part

// Part is either text or a variable.
type Part struct{ Text, Variable string }

// Variables are the values of variables, by name.
type Variables map[string]string

// variables are the variables of arguments, with their meanings.
var variables = map[string]string{
	"door":   "the door's name",
	"source": "the address or prefix of the source",
	"person": "who has knocked, where keys or fwknop says that",
	"port":   "the port of the last knock, such as 1840/tcp",
}

// Expand returns the arguments with the values in place of the variables.
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

// The limits of a command.
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
	if l.lacks(r.Command, r.Range, "No command", `This block needs a program and its arguments: command = ["/usr/bin/logger", "open for ${source}"].`) {
		return c
	}
	arguments, diags := hcl.ExprList(r.Command)
	switch {
	case diags.HasErrors():
		if _, said := r.Command.(*hclsyntax.ExprSyntaxError); !said {
			l.failAt(r.Command, "Not a list", `Write the program and its arguments as a list. No shell splits them: ["/usr/bin/logger", "open for ${source}"].`)
		}
		return c
	case len(arguments) == 0:
		l.failAt(r.Command, "No command", `Write the program and its arguments: ["/usr/bin/logger", "open for ${source}"].`)
	case len(arguments) > maxArguments:
		l.failAt(r.Command, "Too many arguments", fmt.Sprintf("A command has at most %d arguments.", maxArguments))
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
		l.failAt(e, "Not a program", "Write the program without variables.")
		return
	}
	name := a.text()
	if name == "" || strings.HasSuffix(name, "/") || strings.Contains(name, "/") && !path.IsAbs(name) {
		l.failAt(e, "Not a program", "Write the program's absolute path, or only its name if it is in the system's program folders.")
	}
}

func (a Argument) text() (text string) {
	for _, p := range a {
		text += p.Text
	}
	return text
}

// argument reads text with the variables ${door}, ${source} and ${port}. It evaluates
// nothing else.
func (l *Loaded) argument(e hcl.Expression) (Argument, bool) {
	parts := []hclsyntax.Expression{}
	switch e := e.(type) {
	case *hclsyntax.TemplateWrapExpr: // one variable only
		parts = append(parts, e.Wrapped)
	case *hclsyntax.TemplateExpr:
		parts = e.Parts
	case *hclsyntax.ScopeTraversalExpr:
		l.failAt(e, "Not a plain value", "Write text in quotes"+l.suggest(e, `, and a variable between ${ and }: "${%s}".`, "."))
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
				l.failAt(asked, "No such variable", "The variables are "+listOfVariables()+".")
				return nil, false
			}
			a = append(a, Part{Variable: name})
			continue
		}
		if !plain(part) {
			l.failAt(part, "Not a plain value", "Write the name of a variable between ${ and }: "+listOfVariables()+". Write $${ for a literal ${.")
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

// bounded refuses an argument with a NUL byte, which execve(2) cannot pass.
func (l *Loaded) bounded(e hcl.Expression, a Argument, ok bool) (Argument, bool) {
	if strings.ContainsRune(a.text(), 0) {
		l.failAt(e, "Not an argument", "An argument cannot have a NUL byte.")
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
