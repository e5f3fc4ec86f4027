package lab

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/internal/nft"
)

// Nft runs nft on the server and returns its output. The test fails if nft does.
func (l *Lab) Nft(arguments ...string) string {
	l.T.Helper()
	out, err := l.nft("", arguments...)
	Must(l.T, err)
	return out
}

// TryNft runs nft on the server. The error contains nft's message.
func (l *Lab) TryNft(arguments ...string) error {
	l.T.Helper()
	_, err := l.nft("", arguments...)
	return err
}

// LoadNft loads a script for nft on the server.
func (l *Lab) LoadNft(script string) {
	l.T.Helper()
	_, err := l.nft(script, "-f", "-")
	Must(l.T, err)
}

// nft runs nft on the server with an input.
func (l *Lab) nft(input string, arguments ...string) (string, error) {
	l.T.Helper()
	cmd := exec.Command(NeedsProgram(l.T, "nft"), arguments...)
	cmd.Stdin = strings.NewReader(input)
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	Must(l.T, StartOn(l.Server, cmd))
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("nft %s: %w: %s", strings.Join(arguments, " "), err, &problem)
	}
	return out.String(), nil
}

// Listing returns the wall's table as nft lists it, WithoutCounters.
func (l *Lab) Listing() string {
	l.T.Helper()
	return WithoutCounters(l.Nft("list", "table", "inet", "knockwall"))
}

// WithoutCounters removes from a listing what changes by itself: counters and elements of
// sets.
func WithoutCounters(listing string) string {
	return changing.ReplaceAllString(listing, "")
}

var changing = regexp.MustCompile(`(?s)packets \d+ bytes \d+|\n\s*elements = \{.*?\}`)

// counters returns the counters of a chain's rules.
func (l *Lab) counters(table, chain string) (all []counter) {
	l.T.Helper()
	for _, m := range counterLine.FindAllStringSubmatch(l.Nft("list", "chain", "inet", table, chain), -1) {
		n, err := strconv.Atoi(m[2])
		Must(l.T, err)
		all = append(all, counter{m[1], n})
	}
	if len(all) == 0 {
		l.T.Fatalf("nothing counts in the chain %s of %s", chain, table)
	}
	return all
}

var counterLine = regexp.MustCompile(`(?m)^\s*(.*) counter packets (\d+) bytes`)

type counter struct {
	match   string
	packets int
}

// PacketCounts returns how many packets the counters of a chain's rules have counted.
func (l *Lab) PacketCounts(table, chain string) (packets []int) {
	l.T.Helper()
	for _, c := range l.counters(table, chain) {
		packets = append(packets, c.packets)
	}
	return packets
}

// CountStrangers begins to count the packets of a flood's sources that reach programs,
// after all other tables. It counts at the ports that the tests of floods guard.
func (l *Lab) CountStrangers() {
	l.T.Helper()
	var rules strings.Builder
	for _, from := range []string{"ip saddr " + flood4.String(), "ip6 saddr " + flood6.String()} {
		for _, to := range []string{
			"tcp dport 22", "tcp dport 8000-8009", "tcp dport 9000-9010", "tcp dport 2201", "tcp dport 2202", "tcp dport 2204",
			"udp dport 51820", "udp dport 5300-5310", "udp dport 51830",
		} {
			fmt.Fprintf(&rules, "\t\t%s %s counter\n", from, to)
		}
	}
	l.LoadNft("table inet seen {\n\tchain input {\n\t\ttype filter hook input priority 300;\n" + rules.String() + "\t}\n}\n")
}

// StrangersThrough returns a description of the packets that CountStrangers has counted.
func (l *Lab) StrangersThrough() (through []string) {
	l.T.Helper()
	for _, m := range l.counters("seen", "input") {
		if m.packets > 0 {
			through = append(through, fmt.Sprintf("%d, %s", m.packets, m.match))
		}
	}
	return through
}

// SupportsOwnership reports whether this kernel supports table ownership.
func (l *Lab) SupportsOwnership() (owned bool) {
	l.T.Helper()
	Must(l.T, l.Server.Do(func() error {
		k, err := nft.OpenKernel()
		if err == nil {
			owned = k.Features().Ownership
			k.Close()
		}
		return err
	}))
	return owned
}

// NeedsOwnership skips the test if the kernel has no table ownership. Where CI is set, the
// test fails instead.
func (l *Lab) NeedsOwnership(t *testing.T) {
	t.Helper()
	if l.SupportsOwnership() {
		return
	}
	const why = "this kernel has no table ownership: Linux has it since 6.9"
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}
