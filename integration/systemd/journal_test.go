package systemd

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/packet"
)

// entry is an entry of the journal, by field name.
type entry map[string]string

// entries returns the matching entries of the service, in order.
func (m *machine) entries(matches ...string) []entry {
	m.t.Helper()
	out := m.synced(append([]string{"--unit=knockwall", "--output=json", "--quiet"}, matches...)...)
	var all []entry
	for decoder := json.NewDecoder(strings.NewReader(out)); ; {
		fields := map[string]any{}
		if err := decoder.Decode(&fields); err == io.EOF {
			return all
		} else {
			lab.Must(m.t, err)
		}
		e := entry{}
		for name, value := range fields {
			e[name] = fmt.Sprint(value)
		}
		all = append(all, e)
	}
}

// story returns the kinds of events, with repeated kinds as one, because the time of day
// decides which knocks are summed up.
func story(entries []entry) string {
	var kinds []string
	for _, e := range entries {
		kinds = append(kinds, e["KNOCKWALL_EVENT"])
	}
	return strings.Join(slices.Compact(kinds), " ")
}

// saidFields are the fields of each kind that a client below causes. Scripts search for
// them, so they must not change. The counts of knocks vary.
var saidFields = map[string]entry{
	"refused":  {"MESSAGE_ID": "3ea9e666ef234eea80350250807ed352", "PRIORITY": "6", "KNOCKWALL_PORT": "22/tcp", "KNOCKWALL_CODE": "no-window", "KNOCKWALL_COUNT": "1"},
	"knock":    {"MESSAGE_ID": "df796deaca304a11aff218dc7953348f", "PRIORITY": "6", "KNOCKWALL_STEPS": "3", "KNOCKWALL_CODE": "sequence"},
	"reset":    {"MESSAGE_ID": "21470380bb6b4eb4be9f03221d30ffc5", "PRIORITY": "6", "KNOCKWALL_STEP": "1", "KNOCKWALL_STEPS": "3", "KNOCKWALL_CODE": "wrong-order", "KNOCKWALL_REASON": "wrong order", "KNOCKWALL_COUNT": "1"},
	"opened":   {"MESSAGE_ID": "fba10c67f0eb4257965a7685ddeee382", "PRIORITY": "5", "KNOCKWALL_PORT": "1840/tcp", "KNOCKWALL_STEP": "3", "KNOCKWALL_STEPS": "3", "KNOCKWALL_WINDOW": "2.5", "KNOCKWALL_CODE": "sequence", "KNOCKWALL_COUNT": "1"},
	"accepted": {"MESSAGE_ID": "625f23be16cf4e45b7f68c6f81061b54", "PRIORITY": "6", "KNOCKWALL_PORT": "22/tcp", "KNOCKWALL_CODE": "window", "KNOCKWALL_COUNT": "1"},
	"expired":  {"MESSAGE_ID": "a5248bf050cf43fcbe6acd9ddb1a5e18", "PRIORITY": "6", "KNOCKWALL_CODE": "timeout", "KNOCKWALL_COUNT": "1"},
}

// The journal has each client's whole history in fields. The catalog and explain describe
// it.
func TestJournalUnderSystemd(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	m := newPackaged(l, `door "ssh" {
  ports       = [22]
  sequence    = [4113, "27911/udp", 1840]
  seq_timeout = "3s"
  window      = "2500ms"
}`)
	m.does("journalctl", "--update-catalog")
	m.configure("WatchdogSec=5min") // the daemon is stopped below, for as long as this machine needs
	m.does("systemctl", "start", "knockwall.service")
	// The first client knocks in the wrong order first, and then correctly. The second
	// gives up after the wrong order. The third is slow.
	tells := func(client netip.Addr, want string) {
		t.Helper()
		var got string
		defer func() {
			if t.Failed() {
				t.Logf("the journal has of %s: %s", client, got)
			}
		}()
		m.eventually(fmt.Sprintf("the journal has of %s: %s", client, want), func() bool {
			got = story(m.entries("KNOCKWALL_SOURCE=" + client.String()))
			return got == want
		})
	}
	servers := []netip.Addr{lab.Server4, lab.Server6}
	for _, server := range servers {
		l.Knock(lab.Source(3, server), server, lab.TCP(4113))
		for n := 1; n <= 2; n++ {
			l.AdmitsAtOnce(lab.Source(n, server), server, 22)
			tells(lab.Source(n, server), "refused")
			l.Knock(lab.Source(n, server), server, lab.TCP(4113), lab.TCP(1840))
		}
	}
	for _, server := range servers {
		tells(lab.Source(1, server), "refused knock reset")
		lab.Must(t, l.OnFirstSYN(lab.Source(1, server), server, lab.Knocks...))
	}
	for _, server := range servers {
		tells(lab.Source(1, server), "refused knock reset knock opened accepted expired")
		tells(lab.Source(2, server), "refused knock reset")
		tells(lab.Source(3, server), "knock reset")
	}

	seen := map[string]bool{}
	for _, server := range servers {
		guest := lab.Source(1, server)
		var told []string
		for _, e := range m.entries("KNOCKWALL_SOURCE=" + guest.String()) {
			checkEntry(t, e, guest)
			told = append(told, strings.Join([]string{e["KNOCKWALL_EVENT"], e["KNOCKWALL_DOOR"], e["KNOCKWALL_SOURCE"], e["KNOCKWALL_PORT"], e["KNOCKWALL_STEP"]}, " "))
		}
		var known []string
		for decoder := json.NewDecoder(strings.NewReader(m.does("knockwall", "events", "--json"))); ; {
			var e audit.Event
			if err := decoder.Decode(&e); err == io.EOF {
				break
			} else {
				lab.Must(t, err)
			}
			if e.Source.String() != guest.String() {
				continue
			}
			port, step := "", ""
			if e.Port != (packet.Port{}) {
				port = e.Port.String()
			}
			if e.Steps != 0 {
				step = strconv.Itoa(e.Step)
			}
			known = append(known, strings.Join([]string{string(e.Kind), e.Door, e.Source.String(), port, step}, " "))
		}
		slices.Sort(told)
		slices.Sort(known)
		if diff := cmp.Diff(known, told); diff != "" {
			t.Errorf("the history of %s differs in the daemon and in the journal (-daemon +journal):\n%s", guest, diff)
		}

		for client, want := range map[netip.Addr]string{
			lab.Source(9, server): "is not let in: no knock from it was received; knocks are remembered since the daemon started, at ",
			lab.Source(2, server): "is not let in: it knocked in the wrong order at ",
			lab.Source(3, server): "is not let in: it knocked too slowly: by ",
			guest:                 "is not let in: its window is over since ",
		} {
			if out := m.does("knockwall", "explain", client.String()); !strings.HasPrefix(out, "ssh: "+client.String()+" "+want) {
				t.Errorf("explain says of %s %q, want %q", client, out, want)
			}
		}
		out := m.does("journalctl", "--unit=knockwall", "--catalog", "KNOCKWALL_EVENT=refused", "KNOCKWALL_SOURCE="+guest.String())
		for _, want := range []string{
			"-- Subject: A source is refused at the door ssh",
			"-- A new connection was refused, as the door is not open for this source",
			"--   knockwall explain " + guest.String(),
		} {
			if !strings.Contains(strings.ReplaceAll(out, "░░", "--"), want) {
				t.Errorf("the catalog does not say %q:\n%s", want, out)
			}
		}
	}
	checkReport(t, m, servers)
	for _, e := range m.entries("--priority=warning") {
		if e["KNOCKWALL_EVENT"] != "" { // the others are about the rule files
			t.Errorf("the journal has a warning about ordinary traffic: %v", e)
		}
	}

	if l.SupportsOwnership() {
		overload(l, m)
	} else {
		lab.Must(t, l.TryNft("flush", "ruleset"))
	}
	warned := map[bool]string{true: "overloaded", false: "healed"}[l.SupportsOwnership()]
	m.eventually("the journal has warnings about the overload", func() bool {
		return len(m.entries("--priority=warning", "KNOCKWALL_EVENT="+warned, "PRIORITY=4")) > 0
	})

	for _, e := range m.entries() {
		if id := e["MESSAGE_ID"]; e["KNOCKWALL_EVENT"] != "" && !seen[id] {
			seen[id] = true
			out := m.does("journalctl", "--unit=knockwall", "--catalog", "MESSAGE_ID="+id)
			if !strings.Contains(out, "Defined-By: knockwall") || strings.Contains(out, "@KNOCKWALL_") {
				t.Errorf("the catalog does not explain %s:\n%s", e["KNOCKWALL_EVENT"], out)
			}
		}
	}
	if want := len(saidFields) + 2; len(seen) != want {
		t.Errorf("%d kinds of messages were seen, want %d: started, %s and what clients do", len(seen), want, warned)
	}
}

// checkReport checks that the report names the clients that came in, and no others, from the
// journal and from the daemon's memory.
func checkReport(t *testing.T, m *machine, servers []netip.Addr) {
	t.Helper()
	for origin, arguments := range map[string][]string{
		"the journal of knockwall.service:": {"report", "--since", "1h"},
		"the daemon's memory:":              {"report", "--since", "1h", "--control", "/run/knockwall/control.sock"},
	} {
		out := m.does("knockwall", arguments...)
		guests, others, _ := strings.Cut(out, "REFUSED CONNECTIONS BY HOUR")
		if !strings.Contains(strings.Join(strings.Fields(guests), " "), origin) || !strings.Contains(others, "Each door was opened") {
			t.Errorf("%v: the report is\n%s", arguments, out)
		}
		for _, server := range servers {
			row := regexp.MustCompile(regexp.QuoteMeta(lab.Source(1, server).String()) + ` +ssh +knocks +1 +1\n`)
			if !row.MatchString(guests) || strings.Contains(guests, lab.Source(2, server).String()) {
				t.Errorf("%v: the guests are\n%s", arguments, guests)
			}
		}
	}
}

// checkEntry fails the test if an entry is wrong.
func checkEntry(t *testing.T, e entry, source netip.Addr) {
	t.Helper()
	kind := e["KNOCKWALL_EVENT"]
	want := entry{"KNOCKWALL_EVENT": kind, "KNOCKWALL_DOOR": "ssh", "KNOCKWALL_SOURCE": source.String()}
	for name, value := range saidFields[kind] {
		want[name] = value
	}
	got := entry{}
	for name, value := range e {
		if name == "MESSAGE_ID" || name == "PRIORITY" || strings.HasPrefix(name, "KNOCKWALL_") {
			got[name] = value
		}
	}
	if kind == "knock" {
		// The first knock at 1840 is out of order, and is no step.
		port, step := got["KNOCKWALL_PORT"], got["KNOCKWALL_STEP"]
		if !slices.Contains(map[string][]string{"4113/tcp": {"1"}, "27911/udp": {"2"}, "1840/tcp": {"1", "3"}}[port], step) {
			t.Errorf("%s: the knock at %s is the step %q", source, port, step)
		}
		if count, err := strconv.Atoi(got["KNOCKWALL_COUNT"]); err != nil || count < 1 || count > 3 {
			t.Errorf("%s: the knock at %s counts as %q", source, port, got["KNOCKWALL_COUNT"])
		}
		if port == "1840/tcp" && step == "1" {
			want["KNOCKWALL_REASON"] = "before its turn"
		}
		for _, name := range []string{"KNOCKWALL_PORT", "KNOCKWALL_STEP", "KNOCKWALL_COUNT"} {
			delete(got, name)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s, %s (-want +got):\n%s", source, kind, diff)
	}
	if !strings.Contains(e["MESSAGE"], source.String()) || !strings.Contains(e["MESSAGE"], "ssh") {
		t.Errorf("%s, %s: the message is %q", source, kind, e["MESSAGE"])
	}
}

// overload sends knocks that the daemon does not read, until some are lost.
func overload(l *lab.Lab, m *machine) {
	l.T.Helper()
	signal := func(s syscall.Signal) {
		m.does("systemctl", "kill", "--kill-whom=main", fmt.Sprintf("--signal=%d", s), "knockwall.service")
	}
	signal(syscall.SIGSTOP)
	f, began := l.Flood(netip.Addr{}, lab.Server4, 4113), time.Now()
	// In a second, and with that many SYNs, the rules log more than any socket can hold.
	eventually.True(l.T, "the log overflows", func() bool { return f.Sent() > 100_000 && time.Since(began) > time.Second })
	f.Stop()
	signal(syscall.SIGCONT)
	// The number of the next logged knock shows the loss.
	l.Knock(lab.Source(9, lab.Server4), lab.Server4, lab.TCP(4113))
}
