package migrate

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

// change is the change that a command makes to a firewall.
type change struct {
	kind   kind
	ports  []packet.PortRange // opened or closed ports; empty if a closing command does not name them
	device string
	lasts  time.Duration // after this time the firewall closes them itself; 0: never
	note   string        // a comment for the administrator
}

type kind int

const (
	nothing kind = iota // such as a reload
	opens               // ports to the source
	closes              // ports that another command has opened
)

// firewalls are the functions that read the arguments of programs that change a firewall.
// Each returns false unless the command certainly opens ports to the source, or closes
// them again, and does nothing else.
var firewalls = map[string]func(words []string) (change, bool){
	"iptables": iptables, "iptables-nft": iptables, "iptables-legacy": iptables,
	"ip6tables": iptables, "ip6tables-nft": iptables, "ip6tables-legacy": iptables,
	"knock_add": knockHelper, "knock_helper_ipt.sh": knockHelper,
	"nft": nft, "ufw": ufw, "firewall-cmd": firewalld, "ipfw": ipfw,
}

// anyFirewall finds a program that changes a firewall in the text of a command.
var anyFirewall = regexp.MustCompile(`(^|[^A-Za-z0-9_.-])(ip6?tables(-[a-z]+)?|nft|ufw|firewall-cmd|ipfw|ipset|pfctl|knock_add|knock_helper_ipt\.sh)($|[^A-Za-z0-9_.-])`)

// deletesByHandle matches a command that deletes a rule of nft. It needs a shell to find
// the rule's handle.
var deletesByHandle = regexp.MustCompile(`^(\S*/)?nft\s+delete\s+rule\s`)

// withoutSudo removes sudo from the beginning of a command, as knockd ran as root.
func withoutSudo(words []string) []string {
	if len(words) > 1 && path.Base(words[0]) == "sudo" && !strings.HasPrefix(words[1], "-") {
		return words[1:]
	}
	return words
}

// effect is the understood effect of a script.
type effect struct {
	understood bool // all commands that change a firewall are understood
	change
	rest  []simple // commands that change no firewall
	notes []string
}

// understand returns the effect of a script.
func understand(s script) effect {
	if s.shell {
		return effect{understood: deletesByHandle.MatchString(s.text), change: change{kind: closes}}
	}
	e := effect{understood: true}
	for _, part := range s.parts {
		words := withoutSudo(part.words)
		read, ok := firewalls[path.Base(words[0])]
		if !ok {
			e.rest = append(e.rest, part)
			e.understood = e.understood && !anyFirewall.MatchString(part.text)
			continue
		}
		c, ok := read(words[1:])
		if !ok || c.kind == opens && len(c.ports) == 0 || c.device != "" && !isInterface(c.device) {
			return effect{}
		}
		e.add(c)
	}
	return e
}

// add adds the change of one more command. Opening takes precedence over closing, as
// scripts often delete a rule before they insert it, to avoid duplicates.
func (e *effect) add(c change) {
	if c.note != "" && !slices.Contains(e.notes, c.note) {
		e.notes = append(e.notes, c.note)
	}
	switch {
	case c.kind == nothing || c.kind == closes && e.kind == opens:
		return
	case e.kind == c.kind:
		e.understood = e.understood && e.device == c.device && e.lasts == c.lasts
		c.ports = append(e.ports, c.ports...)
	}
	c.ports = distinct(c.ports)
	e.change = c
}

// distinct sorts ports, TCP first, and removes duplicates.
func distinct(ports []packet.PortRange) []packet.PortRange {
	ports = slices.Clone(ports)
	slices.SortFunc(ports, func(a, b packet.PortRange) int {
		for _, d := range []int{int(a.Protocol) - int(b.Protocol), int(a.First) - int(b.First), int(a.Last) - int(b.Last)} {
			if d != 0 {
				return d
			}
		}
		return 0
	})
	return slices.Compact(ports)
}

// isSource reports whether an argument is exactly the source's address.
func isSource(s string) bool {
	return s == placeholder || s == placeholder+"/32" || s == placeholder+"/128"
}

// portNames are common names of ports.
var portNames = map[string]packet.PortRange{
	"ftp":        {First: 21, Last: 21, Protocol: packet.TCP},
	"ssh":        {First: 22, Last: 22, Protocol: packet.TCP},
	"telnet":     {First: 23, Last: 23, Protocol: packet.TCP},
	"smtp":       {First: 25, Last: 25, Protocol: packet.TCP},
	"http":       {First: 80, Last: 80, Protocol: packet.TCP},
	"pop3":       {First: 110, Last: 110, Protocol: packet.TCP},
	"imap":       {First: 143, Last: 143, Protocol: packet.TCP},
	"https":      {First: 443, Last: 443, Protocol: packet.TCP},
	"imaps":      {First: 993, Last: 993, Protocol: packet.TCP},
	"pop3s":      {First: 995, Last: 995, Protocol: packet.TCP},
	"openvpn":    {First: 1194, Last: 1194, Protocol: packet.UDP},
	"mysql":      {First: 3306, Last: 3306, Protocol: packet.TCP},
	"postgresql": {First: 5432, Last: 5432, Protocol: packet.TCP},
	"wireguard":  {First: 51820, Last: 51820, Protocol: packet.UDP},
}

// portList reads port lists such as 22, ssh and 80,443, and ranges. separator is between
// the first and the last port of a range, of which one may be missing.
func portList(s, separator string, protocols []packet.Protocol) ([]packet.PortRange, bool) {
	var ports []packet.PortRange
	for item := range strings.SplitSeq(s, ",") {
		item = strings.TrimSpace(item)
		r := portNames[item]
		if r.First == 0 {
			first, last, isRange := strings.Cut(item, separator)
			switch {
			case !isRange:
				last = first
			case first == "" && last != "":
				first = "1"
			case last == "" && first != "":
				last = "65535"
			}
			var ok1, ok2 bool
			r.First, ok1 = packet.ParsePortNumber(first)
			r.Last, ok2 = packet.ParsePortNumber(last)
			if !ok1 || !ok2 || r.Last < r.First {
				return nil, false
			}
		}
		for _, r.Protocol = range protocols {
			ports = append(ports, r)
		}
	}
	return ports, true
}

// protocols reads the protocol TCP or UDP, by name or number.
func protocols(s string) ([]packet.Protocol, bool) {
	switch strings.ToLower(s) {
	case "tcp", "6":
		return []packet.Protocol{packet.TCP}, true
	case "udp", "17":
		return []packet.Protocol{packet.UDP}, true
	}
	return nil, false
}

var (
	onlyTCP = []packet.Protocol{packet.TCP}
	both    = []packet.Protocol{packet.TCP, packet.UDP}
)
