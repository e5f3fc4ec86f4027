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

// call follows a simple command.
func (r *run) call(s *syntax.Stmt, c *syntax.CallExpr) {
	if len(c.Args) == 0 {
		for _, a := range c.Assigns {
			r.assign(a)
		}
		r.add(step{text: r.sourceOf(s), assigns: true})
		return
	}
	words, known := wordsOf(r.v, c)
	bare := sandbox.Unwrapped(words)
	if len(bare) == 0 {
		r.other(s)
		return
	}
	program := path.Base(bare[0])
	read, isFirewall := firewalls[program]
	switch {
	case known && r.here(s, bare): // as nft -f - <<< 'add rule …'
	case isFirewall && known:
		acts := read(program, bare[1:])
		r.redirected(s)
		r.add(step{text: r.sourceOf(s), firewall: true, acts: acts})
	case isFirewall:
		r.unknownArguments(s, program, bare)
	case program == "sleep" && known:
		for _, word := range bare[1:] {
			r.sleep(word)
		}
	case sandbox.IsShell(program) && known && len(bare) >= 3 && sandbox.HasCommandOption(bare[1]):
		if r.peekText(bare[2]).touchesFirewall() {
			r.within(bare[2])
			return
		}
		r.other(s)
	case program == "eval" && known:
		r.within(strings.Join(bare[1:], " "))
	case slices.Contains([]string{"true", ":", "wait", "set", "exit", "false"}, program):
	case program == "systemd-run" && known:
		r.systemdRun(s, bare)
	case (program == "echo" || program == "printf") && r.recent(s):
	default:
		if known && len(bare) != len(words) && !anyFirewall.MatchString(r.sourceOf(s)) && sandbox.IsSudo(words[0]) {
			// knockd ran as root, so sudo made no difference.
			r.add(step{text: r.afterWords(s, c, len(words)-len(bare))})
			return
		}
		switch {
		case anyFirewall.MatchString(program): // as iptables-restore
			r.doubt("its rules are in a file that is not read here")
		case !known && anyFirewall.MatchString(strings.Join(words, " ")):
			r.doubt("its arguments come from the shell")
		}
		r.other(s)
	}
}

// afterWords returns the text of a statement without its first words.
func (r *run) afterWords(s *syntax.Stmt, c *syntax.CallExpr, n int) string {
	text := r.sourceOf(s)
	begin := int(c.Args[n].Pos().Offset() - s.Pos().Offset())
	return text[min(begin, len(text)):]
}

func (r *run) peekText(text string) *script {
	apart := &script{}
	inner := *r
	inner.script, inner.v = apart, copyOf(r.v)
	inner.within(text)
	return apart
}

// assign sets a variable, or forgets it if its value is only known to the shell.
func (r *run) assign(a *syntax.Assign) {
	if a.Name == nil {
		return
	}
	delete(r.v, a.Name.Value)
	if a.Value == nil || a.Append || a.Array != nil || a.Index != nil {
		return
	}
	if value, known := r.v.word(a.Value); known {
		r.v[a.Name.Value] = value
	}
}

// unknownArguments adds the program of a firewall whose arguments only the shell knows. One
// such command is common: the deletion of a rule whose handle nft has to list first.
func (r *run) unknownArguments(s *syntax.Stmt, program string, words []string) {
	c := act{tool: program}
	if program == "nft" && len(words) > 2 && words[1] == "delete" && words[2] == "rule" {
		c.verb = removes
	} else if slices.Contains(words, "-D") || slices.Contains(words, "delete") {
		c.verb = removes
		c.question("its arguments come from the shell")
	} else {
		c.verdict = accepts
		c.question("its arguments come from the shell")
	}
	r.add(step{text: r.sourceOf(s), firewall: true, acts: []act{c}})
}

// redirected notes a file that a firewall's program is to read.
func (r *run) redirected(s *syntax.Stmt) {
	for _, redirect := range s.Redirs {
		if redirect.Op == syntax.RdrIn {
			r.doubt("it reads its rules from a file")
		}
	}
}

func (r *run) sleep(word string) {
	unit := time.Second
	if n := len(word); n > 0 {
		if u, ok := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour}[word[n-1]]; ok {
			unit, word = u, word[:n-1]
		}
	}
	n, err := strconv.ParseFloat(word, 64)
	if err != nil || n < 0 || n*unit.Seconds() > (365*24*time.Hour).Seconds() {
		r.doubt("it sleeps for a time that is not known here")
		return
	}
	r.at += time.Duration(n * float64(unit))
}

// here follows at now + 1 minute <<< 'command'.
func (r *run) here(s *syntax.Stmt, words []string) bool {
	for _, redirect := range s.Redirs {
		if redirect.Op == syntax.WordHdoc {
			if text, known := r.v.word(redirect.Word); known {
				return r.fed(words, text)
			}
		}
	}
	return false
}

// systemdRun follows systemd-run --on-active=60 program.
func (r *run) systemdRun(s *syntax.Stmt, words []string) {
	after := time.Duration(0)
	a := &arguments{words: words[1:]}
	for strings.HasPrefix(a.peek(), "-") {
		switch option := a.option(); option {
		case "--on-active":
			after, _ = nftTime(strings.NewReplacer("min", "m", "sec", "s", " ", "").Replace(a.next()))
		case "--unit", "-u", "--property", "-p", "--description", "--timer-property":
			a.next()
		}
	}
	if len(a.words) == 0 {
		r.other(s)
		return
	}
	if read, ok := firewalls[path.Base(a.words[0])]; ok {
		began := r.at
		r.at += after
		r.add(step{text: r.sourceOf(s), firewall: true, acts: read(path.Base(a.words[0]), a.words[1:])})
		r.at = began
		return
	}
	if len(a.words) >= 3 && sandbox.IsShell(a.words[0]) && sandbox.HasCommandOption(a.words[1]) && r.peekText(a.words[2]).touchesFirewall() {
		r.later(a.words[2], after)
		return
	}
	r.other(s)
}

// The tools of acts that are lines written to files.
const (
	recentList = "xt_recent"
	hostsAllow = "hosts.allow"
)

// recent follows echo +%IP% > /proc/net/xt_recent/NAME, and a line that is added to
// /etc/hosts.allow.
func (r *run) recent(s *syntax.Stmt) bool {
	bare := *s
	bare.Redirs = nil
	text, known := r.written(&bare)
	for _, redirect := range s.Redirs {
		file, ok := r.v.word(redirect.Word)
		if !ok || !known {
			continue
		}
		c := act{tool: recentList, verdict: accepts, everybody: true}
		switch dir, name := path.Split(file); {
		case dir == "/proc/net/xt_recent/" || dir == "/proc/net/ipt_recent/":
			c.elsewhere = `the list "` + name + `" of the match recent`
			switch {
			case text == "/":
				c.verb = flushes
			case strings.HasPrefix(text, "-"):
				c.verb = removes
				c.from(text[1:])
			default:
				c.from(strings.TrimPrefix(text, "+"))
			}
		case file == "/etc/hosts.allow":
			c.tool, c.elsewhere = hostsAllow, "/etc/hosts.allow"
			c.everybody = !strings.Contains(text, placeholder)
			if service, _, _ := strings.Cut(text, ":"); strings.TrimSpace(service) == "sshd" {
				c.ports, _ = servicePorts("ssh")
				c.notes = append(c.notes, "The command let the source in by TCP wrappers. If these are in use, they have to let everybody in, by this line in /etc/hosts.allow: sshd: ALL")
			}
		default:
			continue
		}
		r.add(step{text: r.sourceOf(s), firewall: true, acts: []act{c}})
		return true
	}
	return false
}

// firewalls are the functions that read the arguments of programs that change a firewall.
var firewalls = map[string]func(tool string, words []string) []act{
	"iptables": iptables, "iptables-nft": iptables, "iptables-legacy": iptables,
	"ip6tables": iptables, "ip6tables-nft": iptables, "ip6tables-legacy": iptables,
	"iptables-save": savesRules, "ip6tables-save": savesRules, "netfilter-persistent": savesRules,
	"knock_add": knockHelper, "knock_helper_ipt.sh": knockHelper,
	"nft": nft, "ufw": ufw, "firewall-cmd": firewalld, "firewall-offline-cmd": firewalld,
	"ipset": ipset, "ipfw": ipfw, "pfctl": pfctl, "csf": csf, "shorewall": shorewall,
}

// anyFirewall finds a program that changes a firewall in the text of a command.
var anyFirewall = regexp.MustCompile(`(^|[^A-Za-z0-9_.-])(ip6?tables(-[a-z]+)?|nft|ufw|firewall-cmd|firewall-offline-cmd|netfilter-persistent|ipfw|ipset|pfctl|csf|shorewall6?|knock_add|knock_helper_ipt\.sh)($|[^A-Za-z0-9_.-])`)
