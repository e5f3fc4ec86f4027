package migrate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

// scripts are the scripts of one key of knockd: for IPv4 sources, and for IPv6 sources if
// that is separate.
type scripts struct {
	v4 script
	v6 *script
}

func (s *scripts) each() []*script {
	if s.v6 == nil {
		return []*script{&s.v4}
	}
	return []*script{&s.v4, s.v6}
}

func (s *scripts) any(is func(*script) bool) bool { return slices.ContainsFunc(s.each(), is) }

func (s *scripts) empty() bool {
	return !s.any(func(s *script) bool { return !s.empty() })
}

func (s *scripts) touchesFirewall() bool { return s.any((*script).touchesFirewall) }

// wrong returns why a shell cannot read one of the scripts, or nil.
func (s *scripts) wrong() error {
	for _, one := range s.each() {
		if one.wrong != nil {
			return one.wrong
		}
	}
	return nil
}

func (s *scripts) doubt() string {
	for _, one := range s.each() {
		if one.doubt != "" {
			return one.doubt
		}
	}
	return ""
}

// text returns the commands for a comment.
func (s *scripts) text() string {
	if s.v6 == nil {
		return s.v4.text
	}
	return strings.TrimSpace(s.v4.text + "   and for IPv6: " + s.v6.text)
}

// command returns the command for the rule file.
func (s *scripts) command() *command {
	if s.v6 == nil {
		return commandOf(s.v4.text)
	}
	return eitherFamily(s.v4.text, s.v6.text)
}

// others returns the command for the programs that change no firewall, or nil if there are
// none.
func (s *scripts) others(from, until time.Duration) *command {
	v4 := s.v4.others(from, until)
	v6 := v4
	if s.v6 != nil {
		v6 = s.v6.others(from, until)
		if s.v4.empty() {
			v4 = v6
		} else if s.v6.empty() {
			v6 = v4
		}
	}
	switch {
	case v4 == "" && v6 == "":
		return nil
	case v4 == v6:
		return commandOf(v4)
	}
	return eitherFamily(v4, v6)
}

// timed is an act with its time after the start.
type timed struct {
	act
	at   time.Duration
	text string
}

func (s *script) timed() (all []timed) {
	for _, p := range s.steps {
		for _, a := range p.acts {
			all = append(all, timed{a, p.at, p.text})
		}
	}
	return all
}

// opening is what commands open, all of it together.
type opening struct {
	acts      []act
	ports     []packet.PortRange
	every     bool
	to        []string
	device    string
	forwarded bool
	elsewhere string        // what leads to the ports, which other rules name
	lasts     time.Duration // 0: until something closes it
	began     time.Duration // after the start
	ended     time.Duration // when the same commands close it; 0: they do not
	nat       []string      // commands that translate for all sources
	notes     []string
	doubt     string // why a door cannot do the same
}

// forEver is later than anything in a script.
const forEver = time.Duration(1<<63 - 1)

// until returns when the commands close the opening themselves.
func (o *opening) until() time.Duration {
	if o.ended > 0 {
		return o.ended
	}
	return forEver
}

func (o *opening) note(text string) {
	if text != "" && !slices.Contains(o.notes, text) {
		o.notes = append(o.notes, text)
	}
}

func (o *opening) question(doubt string) {
	if o.doubt == "" {
		o.doubt = doubt
	}
}

// The notes about what a door does in another way.
const (
	forEverybody = "The command opened these ports to everybody as soon as one source had knocked. Here they open to this source only."
	atEveryPort  = "The command opened every port, so this door guards every port, also those that everybody reaches today, such as those of a web server. " +
		"Leave these out: write into \"ports\" only what is to be hidden, and let your firewall accept just that. " +
		"The knocks are left out already, and 68/udp and 546/udp, as DHCP needs them."
	answersToo = "The command also let the answers out. Your firewall has to do that for everybody, as by: iptables -I OUTPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT"
	elementAll = "The element named no protocol. Remove the ports that are not in use."
)

const differentFamilies = "knockd opened different ports to IPv4 and IPv6 sources. Here all of them open to both."

// opening returns what the scripts open, or nil if they open nothing.
func (s *scripts) opening() *opening {
	o := openingOf(s.v4.timed())
	if s.v6 != nil {
		o6 := openingOf(s.v6.timed())
		switch {
		case o == nil || o6 == nil:
			if o = cmp.Or(o, o6); o == nil {
				return nil
			}
			if s.v4.empty() {
				o.note("knockd did nothing for IPv4 sources. Here IPv4 sources that knock are admitted, too.")
			} else if s.v6.empty() {
				o.note("knockd did nothing for IPv6 sources. Here IPv6 sources that knock are admitted, too. To exclude IPv6, list this host's IPv4 addresses in \"to\".")
			} else {
				o.question("it is another one for IPv6 than for IPv4")
			}
		default:
			o.join(o6)
		}
	}
	if o == nil {
		return nil
	}
	o.question(s.doubt())
	if o.elsewhere != "" && len(o.ports) == 0 {
		o.every = false
	}
	return o
}

// join adds what opens for IPv6.
func (o *opening) join(o6 *opening) {
	if !slices.Equal(o.ports, o6.ports) {
		o.note(differentFamilies)
	}
	if o.device != o6.device || o.ended != o6.ended || o.lasts != o6.lasts || o.forwarded != o6.forwarded {
		o.question("it is another one for IPv6 than for IPv4")
	}
	o.acts = append(o.acts, o6.acts...)
	o.ports = distinct(slices.Concat(o.ports, o6.ports))
	if o.every = o.every || o6.every; o.every {
		o.ports = distinct(packet.MergeRanges(o.ports))
	}
	for _, to := range o6.to {
		if !slices.Contains(o.to, to) {
			o.to = append(o.to, to)
		}
	}
	o.nat = append(o.nat, o6.nat...)
	for _, note := range o6.notes {
		o.note(note)
	}
	o.question(o6.doubt)
}

// openingOf returns what acts open, or nil if they open nothing.
func openingOf(all []timed) *opening {
	all = withoutJumps(all)
	first := slices.IndexFunc(all, func(t timed) bool { return t.opens() })
	if first < 0 {
		return nil
	}
	o := &opening{began: all[first].at, device: all[first].device, lasts: all[first].lasts}
	translates := slices.ContainsFunc(all, func(t timed) bool { return t.opens() && t.verdict == translates })
	for i, t := range all {
		switch {
		case t.verdict == observes:
			for _, note := range t.notes {
				o.note(note)
			}
		case t.path == outward && t.verb == adds:
			o.note(answersToo)
		case t.opens() && translates && t.path == forwarded:
			// What is forwarded after its destination was changed is the same connection.
			o.note("The command also let packets through to the inner host. Your firewall has to do that for everybody.")
		case t.opens():
			o.add(t.act)
		case !t.closes() || i < first:
			// A rule is often removed before it is added, so that it is there only once.
		case slices.ContainsFunc(o.acts, func(a act) bool { return t.takesBack(&a) }) || t.isAnonymous() && t.at > o.began:
			if o.ended == 0 && t.at > o.began {
				o.ended = t.at
			} else if t.at == o.began {
				o.question("it closes at once what it opens")
			}
		default:
			o.note("The command also did this, which is left out: " + t.text)
		}
	}
	slices.Sort(o.to)
	o.to = slices.Compact(o.to)
	if slices.Contains(o.to, "") && len(o.to) > 1 {
		o.question("only some of its rules name a destination")
	}
	o.to = slices.DeleteFunc(o.to, func(to string) bool { return to == "" })
	o.ports = distinct(o.ports)
	if o.every {
		o.ports = distinct(packet.MergeRanges(o.ports))
		o.note(atEveryPort)
	}
	return o
}

// filledToo is the note about a chain that the same commands fill.
const filledToo = "The command sends the source's packets to the chain %s, and fills it. It is assumed that no other rules are in it."

// withoutJumps removes the jumps to chains that the same commands fill. What such a chain
// accepts then opens for those who jump there.
func withoutJumps(all []timed) (rest []timed) {
	all = slices.Clone(all)
	filled := make([]bool, len(all))
	for i, t := range all {
		if t.jump == "" || t.verb != adds || !t.every || t.doubt != "" {
			continue
		}
		for j := range all {
			if into := &all[j]; i != j && into.chain == t.jump && into.opens() {
				filled[i] = true
				into.everybody = into.everybody && t.everybody
				into.device, into.to = cmp.Or(into.device, t.device), cmp.Or(into.to, t.to)
				into.notes = append(slices.Clone(into.notes), fmt.Sprintf(filledToo, t.jump))
			}
		}
	}
	for i, t := range all {
		if !filled[i] {
			rest = append(rest, t)
		}
	}
	return rest
}

// add adds an act that opens.
func (o *opening) add(a act) {
	if a.device != o.device {
		o.question("its rules name different interfaces")
	}
	o.acts = append(o.acts, a)
	o.ports = append(o.ports, a.ports...)
	o.every = o.every || a.every
	o.to = append(o.to, a.to)
	o.forwarded = o.forwarded || a.path == forwarded
	o.lasts = max(o.lasts, a.lasts)
	if a.elsewhere != "" {
		if len(a.ports) == 0 {
			o.elsewhere = a.elsewhere
		} else if slices.ContainsFunc(a.ports, func(r packet.PortRange) bool { return r.Protocol == packet.UDP }) &&
			slices.ContainsFunc(a.ports, func(r packet.PortRange) bool { return r.Protocol == packet.TCP }) {
			o.note(elementAll)
		}
	}
	if a.nat != "" {
		o.nat = append(o.nat, a.nat)
	}
	if a.everybody {
		o.note(forEverybody)
	}
	for _, note := range a.notes {
		o.note(note)
	}
	o.question(a.doubt)
}

// reason says why a door cannot do the same, or "" if it can.
func (o *opening) reason() string {
	switch {
	case o.doubt != "":
		return "This command opens ports, but a door cannot do the same for certain: " + o.doubt + "."
	case o.elsewhere != "":
		return "This command adds the source to " + o.elsewhere + ". Which ports that opens, rules elsewhere say."
	case len(o.ports) == 0:
		return "This command opens ports, and they are not known here."
	}
	return ""
}

// onlyIPv4 reports whether all of it is for IPv4.
func (o *opening) onlyIPv4() bool {
	return !slices.ContainsFunc(o.acts, func(a act) bool { return !a.ipv4 })
}

// spareKnocks takes the knocks of all doors out of the doors that guard every port. A first
// packet to a guarded port waits for a verdict, and meets the rules again after it, so it
// would knock twice.
func spareKnocks(doors []*door) {
	var all []packet.Port
	for _, d := range doors {
		all = slices.Concat(all, d.sequence, d.closeSequence)
	}
	for _, d := range doors {
		if d.opened != nil && d.opened.every {
			for _, knock := range all {
				d.ports = without(d.ports, knock)
			}
		}
	}
}

// without returns ports without one of them.
func without(ports []packet.PortRange, p packet.Port) (rest []packet.PortRange) {
	for _, r := range ports {
		if !r.Contains(p) {
			rest = append(rest, r)
			continue
		}
		if r.First < p.Number {
			rest = append(rest, packet.PortRange{First: r.First, Last: p.Number - 1, Protocol: r.Protocol})
		}
		if p.Number < r.Last {
			rest = append(rest, packet.PortRange{First: p.Number + 1, Last: r.Last, Protocol: r.Protocol})
		}
	}
	return rest
}
