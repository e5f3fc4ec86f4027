// Package doctor examines the host for conditions that defeat, weaken or break the wall:
// a door that guards nothing, a way around a door, a service that may delete the table.
// It reads netlink and /proc. It runs no other program and changes nothing.
//
// Each check is one function, findX, and one row of the table below. The checks share
// these files: firewall.go reads the nftables rules. dump.go receives them from the
// kernel, rule.go interprets a rule, and traffic.go describes the packets that it
// matches. legacy.go and xtables.go do the same for iptables. programs.go finds the
// programs that own sockets.
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

// Severity is the severity of a finding.
type Severity string

// The severities.
const (
	Error   Severity = "error"   // a door does not do what it should: it guards nothing, or keeps out clients that knock correctly
	Warning Severity = "warning" // the door works, but something weakens it or will break it
)

// Finding is a problem on this host and its cure.
type Finding struct {
	Check    string   `json:"check"`
	Severity Severity `json:"severity"`
	Door     string   `json:"door,omitempty"` // empty if it concerns all doors or the host
	Bare     bool     `json:"bare,omitempty"` // the door guards nothing now
	// Stops is what does not get through here, although the wall lets it. IPVersion is 4 or 6
	// if that is so for one version of IP only.
	Stops     Traffic `json:"stops,omitempty"`
	IPVersion int     `json:"ip_version,omitempty"`
	Problem   string  `json:"problem"` // a sentence
	Cure      string  `json:"cure"`    // a sentence
}

// Traffic is a kind of packets to a door.
type Traffic string

// The kinds of packets to a door.
const (
	Knocks      Traffic = "knocks"
	Connections Traffic = "connections" // to its ports
	Others      Traffic = "others"      // connections to its ports, except those of some sources
)

// Unmade is a check that could not be made, for example without root.
type Unmade struct {
	Check string `json:"check"`
	Why   string `json:"why"`
}

// Report is the result of an examination.
type Report struct {
	Findings []Finding `json:"findings"`    // errors first
	Unmade   []Unmade  `json:"not_checked"` // checks whose result is unknown
}

// Moment is the occasion of an examination. Some checks are made only on some occasions.
type Moment uint8

// The moments.
const (
	Reading  Moment = 1 << iota // when the rule files are read: check, reload, run
	Standing                    // while the table is in force: status, and its field degraded
	Asked                       // by the command doctor, which makes all checks
)

// Host is the host to examine.
type Host struct {
	Config  *ruleset.Config   // the rule files; never nil
	InForce *effective.Config // what is in force now; nil if nothing is

	look     sync.Once // several checks read the firewall; it is read once
	rules    *firewall
	rulesErr error
}

// firewall returns the nftables rules, except those of the wall's own table.
func (h *Host) firewall() (*firewall, error) {
	h.look.Do(func() { h.rules, h.rulesErr = readFirewall(h.Config.Wall.Table) })
	return h.rules, h.rulesErr
}

// check is one row of the table of checks.
type check struct {
	name string
	when Moment // the occasions besides Asked
	find func(h *Host) ([]Finding, error)
}

// checks are all checks, in the order of the report.
var checks = []check{
	{"interfaces", Reading | Standing, findInterfaces},
	{"ways around", Reading | Standing, findAround},
	{"second ports", Standing, findSecondPorts},
	{"listening", Standing, findListening},
	{"other tables", Standing, findDropped},
	{"both directions", 0, findAnswers}, // it lists all connections, so only doctor makes it
	{"BPF programs", Standing, findBPF},
	{"saved ruleset", Reading | Standing, findSaved},
	{"conntrack", Standing, findConntrack},
	{"kernel and flushers", 0, findFlushers},
	{"clock", Standing, findClock},
	{"untracked", Standing, findUntracked},
	{"your session", 0, findLockout},
}

// Examine makes all checks of an occasion, in parallel. It takes well under a second.
func Examine(h *Host, at Moment) Report {
	var all sync.WaitGroup
	findings := make([][]Finding, len(checks))
	failures := make([]error, len(checks))
	for i, c := range checks {
		if at == Asked || c.when&at != 0 {
			all.Go(func() {
				defer func() {
					if p := recover(); p != nil { // nothing on the host may end the daemon
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

// BareDoors returns the doors that guard nothing now, each with its problems.
func BareDoors(findings []Finding) map[string]string {
	why := map[string]string{}
	for _, f := range findings {
		if f.Bare {
			why[f.Door] = strings.TrimPrefix(why[f.Door]+" "+f.Problem, " ")
		}
	}
	return why
}

// Obstacles returns the problems that stop one of these kinds of traffic to a door, from
// clients that have a version of IP.
func Obstacles(findings []Finding, door string, stopped []Traffic, ipVersion int) (problems []string) {
	for _, f := range findings {
		if f.Door == door && slices.Contains(stopped, f.Stops) && (f.IPVersion == 0 || f.IPVersion == ipVersion) {
			problems = append(problems, f.Problem)
		}
	}
	return problems
}

// HasErrors reports whether any finding is an error.
func (r Report) HasErrors() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity == Error })
}
