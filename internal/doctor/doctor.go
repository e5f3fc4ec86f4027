// Package doctor looks at the host for what defeats, weakens or breaks a wall: a door
// that stands before nothing, a way around it, somebody who may delete it.
// It asks the kernel, by netlink and /proc, and no other program, and changes nothing.
//
// Each check is one function, findX, and one row of the table below. What the checks have
// in common: firewall.go reads the tables of nftables (dump.go, as the kernel sends them;
// rule.go, what a rule means; traffic.go, what it is about), legacy.go and xtables.go those
// of iptables, programs.go whose sockets are.
package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/ruleset"
)

// Severity says what a finding means for the doors.
type Severity string

// The severities.
const (
	Error   Severity = "error"   // a door is not what it seems: bare, or shut to those who knock right
	Warning Severity = "warning" // it is, and something weakens it, or will break it
)

// Finding is one thing that is wrong on this host, and how to cure it.
type Finding struct {
	Check    string   `json:"check"`
	Severity Severity `json:"severity"`
	Door     string   `json:"door,omitempty"` // empty: it concerns all of them, or the host
	Bare     bool     `json:"bare,omitempty"` // that door stands before nothing now
	Problem  string   `json:"problem"`        // a sentence
	Cure     string   `json:"cure"`           // a sentence
}

// Unmade is a check that could not be made, such as without root.
type Unmade struct {
	Check string `json:"check"`
	Why   string `json:"why"`
}

// Report is what an examination found.
type Report struct {
	Findings []Finding `json:"findings"`    // errors first
	Unmade   []Unmade  `json:"not_checked"` // what they would have found is unknown
}

// Moment is when an examination is made. Some checks are worth a look only then.
type Moment uint8

// The moments.
const (
	Reading  Moment = 1 << iota // the rule files are read: check, reload, run
	Standing                    // the wall stands: status, and what degrades it
	Asked                       // by the command doctor, which makes all checks
)

// Host is what is examined.
type Host struct {
	Config  *ruleset.Config   // the doors; never nil
	InForce *effective.Config // what they come to, if they are in force

	look     sync.Once // at the firewall, which several checks want to know of
	rules    *firewall
	rulesErr error
}

// firewall returns the rules of nftables, but for the wall's.
func (h *Host) firewall() (*firewall, error) {
	h.look.Do(func() { h.rules, h.rulesErr = readFirewall(h.Config.Wall.Table) })
	return h.rules, h.rulesErr
}

// check is one row of the table of checks.
type check struct {
	name string
	when Moment // besides Asked
	find func(h *Host) ([]Finding, error)
}

// checks are all of them, in the order in which they are told.
var checks = []check{
	{"interfaces", Reading | Standing, findInterfaces},
	{"ways around", Reading | Standing, findAround},
	{"second ports", Standing, findSecondPorts},
	{"listening", Standing, findListening},
	{"other tables", Standing, findDropped},
	{"both directions", 0, findAnswers}, // which lists all connections
	{"BPF programs", Standing, findBPF},
	{"saved ruleset", Reading | Standing, findSaved},
	{"conntrack", Standing, findConntrack},
	{"kernel and flushers", 0, findFlushers},
	{"clock", Standing, findClock},
	{"untracked", Standing, findUntracked},
	{"your session", 0, findLockout},
}

// Examine makes all checks of that moment, side by side. It takes well under a second.
func Examine(h *Host, at Moment) Report {
	var all sync.WaitGroup
	findings := make([][]Finding, len(checks))
	failures := make([]error, len(checks))
	for i, c := range checks {
		if at == Asked || c.when&at != 0 {
			all.Go(func() {
				defer func() {
					if p := recover(); p != nil { // what the host has must not end a daemon
						failures[i] = fmt.Errorf("the check failed: %v", p)
					}
				}()
				findings[i], failures[i] = c.find(h)
			})
		}
	}
	all.Wait()
	r := Report{Findings: []Finding{}, Unmade: []Unmade{}}
	for i, c := range checks {
		for _, f := range findings[i] {
			f.Check = c.name
			r.Findings = append(r.Findings, f)
		}
		if err := failures[i]; err != nil {
			r.Unmade = append(r.Unmade, Unmade{c.name, err.Error()})
		}
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return cmp.Compare(a.Severity, b.Severity) })
	return r
}

// BareDoors returns the doors that stand before nothing now, and why.
func BareDoors(findings []Finding) map[string]string {
	why := map[string]string{}
	for _, f := range findings {
		if f.Bare {
			why[f.Door] = strings.TrimPrefix(why[f.Door]+" "+f.Problem, " ")
		}
	}
	return why
}

// HasErrors reports whether a door is not what it seems.
func (r Report) HasErrors() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity == Error })
}
