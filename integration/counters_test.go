package integration

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// watchStrangers counts packets of a flood's sources that reach programs, after all other
// tables.
func (l *lab) watchStrangers() {
	l.t.Helper()
	var rules strings.Builder
	for _, from := range []string{"ip saddr " + flood4.String(), "ip6 saddr " + flood6.String()} {
		for _, to := range []string{
			"tcp dport 22", "tcp dport 8000-8009", "tcp dport 9000-9010", "tcp dport 2201", "tcp dport 2202", "tcp dport 2204",
			"udp dport 51820", "udp dport 5300-5310", "udp dport 51830",
		} {
			fmt.Fprintf(&rules, "\t\t%s %s counter\n", from, to)
		}
	}
	l.nftScript("table inet seen {\n\tchain input {\n\t\ttype filter hook input priority 300;\n" + rules.String() + "\t}\n}\n")
}

// strangersThrough returns which packets reached programs.
func (l *lab) strangersThrough() (through []string) {
	l.t.Helper()
	for _, m := range l.counters("seen", "input") {
		if m.packets > 0 {
			through = append(through, fmt.Sprintf("%d, %s", m.packets, m.match))
		}
	}
	return through
}

var counterLine = regexp.MustCompile(`(?m)^\s*(.*) counter packets (\d+) bytes`)

type counted struct {
	match   string
	packets int
}

// counters returns the counters of a chain's rules.
func (l *lab) counters(table, chain string) (all []counted) {
	l.t.Helper()
	for _, m := range counterLine.FindAllStringSubmatch(l.nft("list", "chain", "inet", table, chain), -1) {
		n, err := strconv.Atoi(m[2])
		must(l.t, err)
		all = append(all, counted{m[1], n})
	}
	if len(all) == 0 {
		l.t.Fatalf("nothing counts in the chain %s of %s", chain, table)
	}
	return all
}

func (l *lab) counted(table, chain string) (packets []int) {
	l.t.Helper()
	for _, c := range l.counters(table, chain) {
		packets = append(packets, c.packets)
	}
	return packets
}
