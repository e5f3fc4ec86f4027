package migrate

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"mvdan.cc/sh/v3/syntax"

	"github.com/knockwall/knockwall/internal/sandbox"
)

// script is what a command line does, in order.
type script struct {
	text  string
	steps []step
	doubt string // why what it does to a firewall is not certain
	wrong error  // a shell cannot read it
}

// step is one program of a script.
type step struct {
	at       time.Duration // after the start, by the sleep before it
	text     string        // the program as the script has it
	acts     []act         // what it does to a firewall
	firewall bool          // it is the program of a firewall
	assigns  bool          // it only sets a variable of the shell
}

func (s *script) empty() bool {
	return s.wrong == nil && s.doubt == "" && !slices.ContainsFunc(s.steps, func(p step) bool { return !p.assigns })
}

// touchesFirewall reports whether any of its programs is the program of a firewall.
func (s *script) touchesFirewall() bool {
	return s.doubt != "" || slices.ContainsFunc(s.steps, func(p step) bool { return p.firewall })
}

// others returns the programs that change no firewall, from one time until another, as a
// command line. Variables that are set before come first.
func (s *script) others(from, until time.Duration) string {
	var texts []string
	last := 0
	for _, p := range s.steps {
		if p.firewall || p.at >= until || p.at < from && !p.assigns {
			continue
		}
		texts = append(texts, p.text)
		if !p.assigns {
			last = len(texts)
		}
	}
	text := ""
	for i, t := range texts[:last] {
		if i > 0 && !strings.HasSuffix(text, "&") {
			text += ";"
		}
		text = strings.TrimSpace(text + " " + t)
	}
	return text
}

// readScript reads a command line.
func readScript(text string) script {
	s := script{text: text}
	f, err := parseShell(text)
	if err != nil {
		s.wrong = err
		return s
	}
	r := &run{script: &s, text: text, v: variables{}}
	r.statements(f.Stmts)
	return s
}

// The limits of a run.
const (
	maxDepth = 8   // of texts within texts, as sh -c 'sh -c …'
	maxSteps = 200 // programs that one command line runs
)

// run follows a script without running it.
type run struct {
	script *script
	text   string // which the tree is of
	v      variables
	at     time.Duration
	depth  int
}

func (r *run) doubt(why string) {
	if r.script.doubt == "" {
		r.script.doubt = why
	}
}

func (r *run) statements(list []*syntax.Stmt) {
	for _, s := range list {
		r.statement(s)
	}
}

// statement follows one statement. A statement in the background takes no time.
func (r *run) statement(s *syntax.Stmt) {
	began := r.at
	r.command(s)
	if s.Background {
		r.at = began
	}
}

func (r *run) command(s *syntax.Stmt) {
	switch c := s.Cmd.(type) {
	case *syntax.CallExpr:
		r.call(s, c)
	case *syntax.BinaryCmd:
		r.binary(s, c)
	case *syntax.Subshell:
		if !r.whole(s, c.Stmts) {
			r.statements(c.Stmts)
		}
	case *syntax.Block:
		if !r.whole(s, c.Stmts) {
			r.statements(c.Stmts)
		}
	case *syntax.TimeClause:
		if c.Stmt != nil {
			r.statement(c.Stmt)
		}
	case *syntax.ForClause:
		r.loop(s, c)
	case *syntax.IfClause:
		r.choice(s, c)
	case *syntax.CaseClause:
		r.cases(s, c)
	case *syntax.WhileClause:
		r.repeated(s, c)
	case nil: // only a redirection
		r.other(s)
	default:
		r.opaque(s, "a loop or a function of the shell")
	}
}

// peek follows statements apart, and returns what they do.
func (r *run) peek(list ...*syntax.Stmt) *script {
	apart := &script{}
	inner := *r
	inner.script, inner.v = apart, copyOf(r.v)
	inner.statements(list)
	return apart
}

func copyOf(v variables) variables {
	c := variables{}
	for name, value := range v {
		c[name] = value
	}
	return c
}

// whole keeps a group of statements as one program if it has a redirection and changes no
// firewall.
func (r *run) whole(s *syntax.Stmt, list []*syntax.Stmt) bool {
	if len(s.Redirs) == 0 || r.peek(list...).touchesFirewall() {
		return false
	}
	r.other(s)
	return true
}

// opaque adds a statement that is not followed. If it changes a firewall, that is a doubt.
func (r *run) opaque(s *syntax.Stmt, what string) {
	if anyFirewall.MatchString(r.sourceOf(s)) {
		r.doubt("it is in " + what + ", which is not followed here")
	}
	r.other(s)
}

// sourceOf returns the text of a statement without the ; at its end.
func (r *run) sourceOf(s *syntax.Stmt) string {
	return strings.TrimSpace(strings.TrimSuffix(source(r.text, s), ";"))
}

// other adds a program that changes no firewall.
func (r *run) other(s *syntax.Stmt) { r.add(step{text: r.sourceOf(s)}) }

func (r *run) add(p step) {
	if len(r.script.steps) == maxSteps {
		r.doubt("it has too many commands")
		return
	}
	p.at = r.at
	r.script.steps = append(r.script.steps, p)
}

// binary follows two statements with && or || or | between them.
func (r *run) binary(s *syntax.Stmt, c *syntax.BinaryCmd) {
	switch c.Op {
	case syntax.AndStmt:
		r.statement(c.X)
		r.statement(c.Y)
	case syntax.OrStmt:
		r.alternative(s, c)
	default:
		r.pipe(s, c)
	}
}

// alternative follows X || Y.
func (r *run) alternative(s *syntax.Stmt, c *syntax.BinaryCmd) {
	x, y := r.peek(c.X), r.peek(c.Y)
	changes := func(s *script) bool {
		return slices.ContainsFunc(s.steps, func(p step) bool { return len(p.acts) > 0 })
	}
	switch {
	case !x.touchesFirewall() && !y.touchesFirewall():
		r.other(s)
	case !changes(y): // what runs if the firewall fails, as || true
		r.statement(c.X)
	case !changes(x): // iptables -C … || iptables -A …
		r.statement(c.Y)
	default:
		for _, p := range x.steps {
			for _, q := range y.steps {
				for i := range p.acts {
					if slices.ContainsFunc(q.acts, func(b act) bool { return b.verb != p.acts[i].verb || b.verdict != p.acts[i].verdict }) {
						r.doubt("it does one thing or another, as it joins them by ||")
					}
				}
			}
		}
		r.statement(c.X)
		r.statement(c.Y)
	}
}

// pipe follows X | Y. A text that X writes may be the input of Y.
func (r *run) pipe(s *syntax.Stmt, c *syntax.BinaryCmd) {
	if text, ok := r.written(c.X); ok {
		if call, isCall := c.Y.Cmd.(*syntax.CallExpr); isCall {
			if words, known := wordsOf(r.v, call); known && r.fed(words, text) {
				return
			}
		}
	}
	x, y := r.peek(c.X), r.peek(c.Y)
	switch {
	case !x.touchesFirewall() && !y.touchesFirewall():
		if anyFirewall.MatchString(r.sourceOf(s)) {
			r.doubt("it reads its rules from another program")
		}
		r.other(s)
	case y.touchesFirewall():
		r.doubt("it reads its rules from another program")
		r.other(s)
	default: // as iptables … | tee -a log
		r.statement(c.X)
	}
}

// written returns the text that echo or printf writes.
func (r *run) written(s *syntax.Stmt) (string, bool) {
	call, ok := s.Cmd.(*syntax.CallExpr)
	if !ok || len(s.Redirs) > 0 {
		return "", false
	}
	words, known := wordsOf(r.v, call)
	if !known || len(words) < 2 {
		return "", false
	}
	switch path.Base(words[0]) {
	case "echo":
		words = words[1:]
		for len(words) > 0 && (words[0] == "-n" || words[0] == "-e") {
			words = words[1:]
		}
		return strings.ReplaceAll(strings.Join(words, " "), `\n`, "\n"), true // as /bin/sh of Debian writes it, with or without -e
	case "printf":
		format := strings.NewReplacer(`\n`, "\n", "%%", "%").Replace(words[1])
		for _, value := range words[2:] {
			format = strings.Replace(format, "%s", value, 1)
		}
		return format, true
	}
	return "", false
}

// fed follows a program that gets a text as its input. It returns false if the program is
// none that is known to read commands.
func (r *run) fed(words []string, text string) bool {
	words = sandbox.Unwrapped(words)
	if len(words) == 0 {
		return false
	}
	program := path.Base(words[0])
	switch {
	case program == "at" || program == "batch":
		after, ok := atTime(words[1:])
		if !ok {
			if anyFirewall.MatchString(text) {
				r.doubt("it waits for a time of day")
			}
			return false
		}
		r.later(text, after)
	case sandbox.IsShell(program) && (len(words) == 1 || words[1] == "-s" || words[1] == "-"):
		r.later(text, 0)
	case program == "nft" && readsInput(words):
		r.add(step{firewall: true, acts: nftScript(program, text)})
	case (program == "iptables-restore" || program == "ip6tables-restore") && !readsFile(words):
		tool := strings.TrimSuffix(program, "-restore")
		var acts []act
		for line := range strings.Lines(text) {
			if words := wordsIn(line); len(words) > 0 && words[0][0] == '-' {
				acts = append(acts, iptables(tool, words)...)
			}
		}
		r.add(step{firewall: true, acts: acts})
	case program == "pfctl" && readsInput(words):
		anchor := ""
		if i := slices.Index(words, "-a"); i >= 0 && i+1 < len(words) {
			anchor = words[i+1]
		}
		r.add(step{firewall: true, acts: pfRules(program, anchor, text)})
	default:
		return false
	}
	return true
}

// readsInput reports whether a program reads its commands from its input.
func readsInput(words []string) bool {
	return slices.Contains(words, "-") || slices.Contains(words, "/dev/stdin")
}

// readsFile reports whether a program has an argument that may be the name of a file.
func readsFile(words []string) bool {
	return slices.ContainsFunc(words[1:], func(w string) bool { return !strings.HasPrefix(w, "-") && w != "" })
}

// later follows a text that a shell runs after a time, beside this script.
func (r *run) later(text string, after time.Duration) {
	inner := *r
	inner.at += after
	inner.within(text)
}

// within follows a text that another shell runs.
func (r *run) within(text string) {
	f, err := parseShell(text)
	if err != nil || r.depth == maxDepth {
		r.doubt("a shell within it cannot be read")
		return
	}
	outer, depth := r.text, r.depth
	r.text, r.depth = text, depth+1
	r.statements(f.Stmts)
	r.text, r.depth = outer, depth
}

// atTime reads the arguments of at: now + 5 minutes. A queue and -M may come before.
func atTime(words []string) (time.Duration, bool) {
	words = slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "-M" || w == "-m" })
	text := strings.ToLower(strings.Join(words, ""))
	m := regexp.MustCompile(`^(?:-q[a-z])?now(?:\+(\d{1,6})(minute|min|hour|day|week)s?)?$`).FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	n, _ := strconv.Atoi("0" + m[1])
	unit := map[string]time.Duration{"minute": time.Minute, "min": time.Minute, "hour": time.Hour, "day": 24 * time.Hour, "week": 7 * 24 * time.Hour}[m[2]]
	return time.Duration(n) * unit, true
}

// loop follows a for over known words.
func (r *run) loop(s *syntax.Stmt, c *syntax.ForClause) {
	iterations, ok := c.Loop.(*syntax.WordIter)
	if !r.peek(c.Do...).touchesFirewall() || !ok {
		r.opaque(s, "a loop")
		return
	}
	var values []string
	for _, w := range iterations.Items {
		words, known := r.v.words(w)
		if !known {
			r.doubt("it is in a loop over what only the shell knows")
		}
		values = append(values, words...)
	}
	for _, value := range values[:min(len(values), maxSteps)] {
		r.v[iterations.Name.Value] = value
		r.statements(c.Do)
	}
}

// repeated follows while iptables -D …; do :; done, which removes a rule as often as it is
// there.
func (r *run) repeated(s *syntax.Stmt, c *syntax.WhileClause) {
	once := r.peek(c.Cond...)
	only := len(once.acts()) > 0 && !slices.ContainsFunc(once.acts(), func(a act) bool { return a.verb != removes })
	if c.Until || !only || r.peek(c.Do...).touchesFirewall() {
		r.opaque(s, "a loop")
		return
	}
	r.statements(c.Cond)
	r.statements(c.Do)
}

// choice follows if A; then B; fi. A only looks whether B is needed.
func (r *run) choice(s *syntax.Stmt, c *syntax.IfClause) {
	inner := r.peek(c.Then...)
	if !inner.touchesFirewall() || c.Else != nil || len(r.peek(c.Cond...).acts()) > 0 {
		r.opaque(s, "an if of the shell")
		return
	}
	r.statements(c.Then)
}

// cases follows the branches of case … in … esac if they do the same to a firewall, as one
// branch is often for IPv4 and one for IPv6.
func (r *run) cases(s *syntax.Stmt, c *syntax.CaseClause) {
	if value, _ := r.v.word(c.Word); value != placeholder {
		r.opaque(s, "a case of the shell")
		return
	}
	for _, item := range c.Items {
		r.statements(item.Stmts)
	}
}

// acts returns all that the script does to a firewall.
func (s *script) acts() (all []act) {
	for _, p := range s.steps {
		all = append(all, p.acts...)
	}
	return all
}
