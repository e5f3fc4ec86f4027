package report

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/net/html"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
)

// until is the end of the periods of the tests, a Saturday.
var until = time.Date(2026, 11, 28, 21, 30, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return until.Add(-d) }

func source(text string) packet.Source {
	s, err := packet.ParseSource(text)
	if err != nil {
		panic(err)
	}
	return s
}

// week is the events of a week with something of everything.
func week() []audit.Event {
	ssh := func(e audit.Event) audit.Event { e.Door = "ssh"; return e }
	events := []audit.Event{
		{Time: ago(8 * 24 * time.Hour), Kind: audit.Opened, Door: "old", Source: source("192.0.2.99"), Code: audit.CodeSequence}, // before the week
		ssh(audit.Event{Time: ago(150 * time.Hour), Kind: audit.Opened, Source: source("192.0.2.7"), Code: audit.CodeSequence, Count: 1}),
		ssh(audit.Event{Time: ago(150 * time.Hour), Kind: audit.Accepted, Source: source("192.0.2.7"), Code: audit.CodeWindow, Count: 3}),
		ssh(audit.Event{Time: ago(30 * time.Hour), Kind: audit.Refreshed, Source: source("192.0.2.7"), Code: audit.CodeManual, Count: 1}),
		ssh(audit.Event{Time: ago(40 * time.Hour), Kind: audit.Accepted, Source: source("198.51.100.9"), Code: audit.CodeWindow}), // its window is older
		{Time: ago(20 * time.Hour), Kind: audit.Closed, Door: "ssh", Source: source("192.0.2.7"), Code: audit.CodeNotClosed, Failed: true},
		{Time: ago(19 * time.Hour), Kind: audit.Started, Code: audit.CodeRules},
	}
	for i, from := range []string{"203.0.113.4", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:1", "203.0.113.5", "203.0.113.6"} {
		alice := audit.Event{Time: ago(time.Duration(20-i) * time.Hour), Door: "vpn", Source: source(from), Person: "alice@laptop", Key: "SHA256:abc", Count: 1}
		alice.Kind, alice.Code = audit.Opened, audit.CodeKey
		events = append(events, alice)
		alice.Kind, alice.Code = audit.Accepted, audit.CodeWindow
		alice.Person = "alice@lap" // as an event has a long name
		events = append(events, alice)
	}
	for h := range 100 {
		events = append(events, ssh(audit.Event{Time: ago(time.Duration(h) * time.Hour), Kind: audit.Refused, Source: source("203.0.113.200"),
			Code: audit.CodeNoWindow, Count: 1 + h*h%37}))
	}
	return append(events,
		ssh(audit.Event{Time: ago(10 * time.Hour), Kind: audit.Opened, Source: source("198.51.100.77"), Code: audit.CodeManual}), // and not used
		ssh(audit.Event{Time: ago(90 * time.Minute), Kind: audit.Refused, Code: audit.CodeManySources, Count: 12345}),
		ssh(audit.Event{Time: ago(2 * time.Hour), Kind: audit.Trapped, Source: source("203.0.113.66"), Code: audit.CodeTrap, Count: 4}),
		ssh(audit.Event{Time: ago(time.Hour), Kind: audit.Trapped, Source: source("203.0.113.66"), Code: audit.CodeSpray, Count: 1}),
		ssh(audit.Event{Time: ago(time.Hour), Kind: audit.Trapped, Source: source("2001:db8::/64"), Code: audit.CodeSpray, Count: 1}),
		ssh(audit.Event{Time: ago(time.Hour), Kind: audit.Trapped, Code: audit.CodeManySources, Count: 1500}),
		audit.Event{Time: ago(time.Hour), Kind: audit.Overloaded, Code: audit.CodePacketsLost, Count: 9},
	)
}

var known = Known{
	Doors:  []string{"ssh", "vpn", "web"},
	People: []Person{{"alice@laptop", []string{"ssh", "vpn"}}, {"bob@home", []string{"vpn"}}},
}

func reportOf(known *Known, events ...audit.Event) *Report {
	c := NewCollector(ago(7*24*time.Hour), until)
	for _, e := range events {
		c.Add(e)
	}
	return c.Report(known)
}

func (r *Report) text(t *testing.T, columns int) string {
	t.Helper()
	var b strings.Builder
	if err := r.WriteText(&b, Style{Columns: columns}, "the journal of knockwall.service"); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func (r *Report) page(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	if err := r.WritePage(&b, "the journal of knockwall.service"); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestText(t *testing.T) {
	for name, r := range map[string]*Report{
		"week":    reportOf(&known, week()...),
		"nothing": reportOf(nil),
	} {
		want, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		if got := r.text(t, 80); got != string(want) {
			t.Errorf("%s: the report is\n%s", name, got)
		}
	}
}

func TestTextFitsATerminal(t *testing.T) {
	r := reportOf(&known, append(week(), audit.Event{Time: ago(time.Hour), Kind: audit.Opened, Door: strings.Repeat("d", 60),
		Person: strings.Repeat("né ", 30), Source: source("192.0.2.1"), Code: audit.CodeKey})...)
	for _, columns := range []int{64, 80, 120} {
		for line := range strings.Lines(r.text(t, columns)) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > columns {
				t.Errorf("%d columns, not %d: %s", n, columns, line)
			}
		}
	}
}

// Where there is little room, other columns go first: whoever came in can be told apart.
func TestWhoIsShownInFullOnANarrowTerminal(t *testing.T) {
	r := reportOf(&known, append(week(), audit.Event{Time: ago(time.Hour), Kind: audit.Opened, Door: strings.Repeat("d", 60),
		Source: source("2001:db8:1:2::/64"), Code: audit.CodeKey})...)
	for _, columns := range []int{48, 60, 80} {
		text := r.text(t, columns)
		for _, who := range []string{"alice@laptop ", "2001:db8:1:2::/64 ", "198.51.100.9 ", "203.0.113.66 ", "2001:db8::/64 "} {
			if !strings.Contains(text, who) {
				t.Errorf("%d columns lack %q:\n%s", columns, who, text)
			}
		}
	}
	if wide := r.text(t, 80); !strings.Contains(wide, "  BY ") || !strings.Contains(wide, "  CONNECTIONS\n") {
		t.Errorf("a wide terminal lacks a column:\n%s", wide)
	}
}

// Not every terminal has more than ASCII.
func TestTextInASCII(t *testing.T) {
	events := week()
	for i := range textRows + 1 {
		events = append(events, audit.Event{Time: ago(time.Hour), Kind: audit.Opened, Door: strings.Repeat("d", 60), Person: fmt.Sprint("p", i), Source: source("192.0.2.1")})
	}
	r := reportOf(&known, events...)
	var b strings.Builder
	if err := r.WriteText(&b, Style{Columns: 60, ASCII: true}, "here"); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	if i := strings.IndexFunc(text, func(r rune) bool { return r > 126 }); i >= 0 {
		t.Errorf("it is not ASCII: %s", text[i:])
	}
	for _, want := range []string{"d~ ", "  ... and ", "  Mon 23 Nov  ........................  0\n", "1111111181..", "An 8 is 12,347 in an hour"} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q:\n%s", want, text)
		}
	}
}

// The wall counts no connections of clients that need not knock. So 0 would be wrong for one that
// knocks nevertheless, and so would "nobody" for a door that only such clients use.
func TestTrustedClientsAreNotCounted(t *testing.T) {
	opened := func(from, person string) audit.Event {
		return audit.Event{Time: ago(time.Hour), Kind: audit.Opened, Door: "ssh", Source: source(from), Person: person, Code: audit.CodeKey}
	}
	accepted := opened("2001:db8::9", "")
	accepted.Kind, accepted.Code = audit.Accepted, audit.CodeWindow
	events := []audit.Event{opened("192.0.2.7", ""), opened("192.0.2.8", "alice@laptop"), opened("198.51.100.9", ""), opened("2001:db8::9", ""), accepted}
	of := func(trusted ...string) *Report {
		k := Known{Doors: []string{"ssh", "web"}, Trusted: map[string][]netip.Prefix{}}
		for _, p := range trusted {
			k.Trusted["ssh"] = append(k.Trusted["ssh"], netip.MustParsePrefix(p))
			k.Trusted["web"] = k.Trusted["ssh"]
		}
		return reportOf(&k, events...)
	}
	const why, unused = "A trusted client need not knock.", "Trusted clients need not open them"
	r := of("192.0.2.0/24", "2001:db8::/64")
	text, page := strings.Join(strings.Fields(r.text(t, 80)), " "), r.page(t)
	for _, want := range []string{"192.0.2.7 ssh ssh key 1 trusted", "alice@laptop ssh ssh key 1 trusted", "198.51.100.9 ssh ssh key 1 0",
		"2001:db8::9 ssh ssh key 1 1", why, "Doors that nobody opened: web. " + unused} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q:\n%s", want, text)
		}
	}
	if n := strings.Count(page, "trusted</tr>"); n != 2 || !strings.Contains(page, why) || !strings.Contains(page, unused) {
		t.Errorf("%d rows of the page are about trusted clients:\n%s", n, page)
	}
	r = of()
	if text, page := r.text(t, 80), r.page(t); strings.Contains(text+page, "rusted client") {
		t.Errorf("nobody is trusted, and the report is\n%s", text)
	}
}

// A trial that nobody confirmed has done what it is for.
func TestATrialThatRanOutIsNoFailure(t *testing.T) {
	e := audit.Event{Time: ago(time.Hour), Kind: audit.Reloaded, Code: audit.CodeNotConfirmed, Failed: true}
	text := reportOf(&known, e, e).text(t, 80)
	if strings.Contains(text, "failed") || !strings.Contains(text, "after a trial that nobody confirmed, 2 times.") {
		t.Errorf("the report is\n%s", text)
	}
}

// leftOut are the codes that a report leaves out on purpose, by kind. It is about who came in
// and who did not, and not about how they knock or what the host does.
var leftOut = map[audit.Kind][]audit.Code{
	audit.Reset: {audit.CodeWrongOrder, audit.CodeTooLate, audit.CodeNotAPassword, audit.CodeNotFwknop, audit.CodeClock, audit.CodeExpired,
		audit.CodeNotFrom, audit.CodeNotAllowed, audit.CodeUnknownDoor, audit.CodeManySources},
	audit.Knock: {audit.CodeSequence, audit.CodeCloseSequence, audit.CodePassword, audit.CodeClosePassword, audit.CodeKey, audit.CodeCloseKey,
		audit.CodeFwknop, audit.CodeManySources},
	audit.Replayed: {audit.CodeSequence, audit.CodePassword, audit.CodeClosePassword, audit.CodeKey, audit.CodeCloseKey, audit.CodeFwknop,
		audit.CodeManySources},
	audit.Refused: {audit.CodeNotShared}, // it refuses what another host has told, and no connection
	audit.Closed: {audit.CodeCloseSequence, audit.CodeClosePassword, audit.CodeCloseKey, audit.CodeManual, audit.CodeShared,
		audit.CodeMaxConnections, audit.CodeNewRules, audit.CodeNoLonger, audit.CodeManySources},
	audit.Expired:    {audit.CodeTimeout, audit.CodeManySources},
	audit.Command:    {audit.CodeSucceeded},
	audit.Low:        {audit.CodeFewLeft},
	audit.Overloaded: {audit.CodeLossOver, audit.CodeConntrackFull, audit.CodeConntrackRoom},
	audit.Reloaded:   {audit.CodeRules, audit.CodeTrial, audit.CodeConfirmed, audit.CodeReverted},
	audit.Healed:     {audit.CodePutBack},
	audit.Started:    {audit.CodeRules, audit.CodeTrial},
	audit.Stopped:    {audit.CodeWallStands, audit.CodeWallRemoved},
}

func TestEachCodeIsShownOrLeftOutOnPurpose(t *testing.T) {
	nothing := reportOf(nil)
	shows := func(kind audit.Kind, code audit.Code, failed bool) bool {
		e := audit.Event{Time: ago(time.Hour), Kind: kind, Door: "ssh", Code: code, Failed: failed}
		if code != audit.CodeManySources {
			e.Source = source("192.0.2.7")
		}
		r := reportOf(nil, e)
		r.Events, r.First = nothing.Events, nothing.First // every event counts there
		return !reflect.DeepEqual(r, nothing)
	}
	for _, row := range audit.Table() {
		for _, code := range row.Codes {
			if want := !slices.Contains(leftOut[row.Kind], code); shows(row.Kind, code, false) != want {
				t.Errorf("%s with the code %s is shown: %t", row.Kind, code, !want)
			}
		}
		for _, code := range row.Failures {
			if !shows(row.Kind, code, true) {
				t.Errorf("%s that failed with the code %s is not shown", row.Kind, code)
			}
		}
		for _, code := range leftOut[row.Kind] {
			if !slices.Contains(row.Codes, code) {
				t.Errorf("%s cannot have the code %s, which is left out", row.Kind, code)
			}
		}
	}
}

func TestEachWayInAndEachTrapHasItsWords(t *testing.T) {
	for kind, words := range map[audit.Kind]map[audit.Code]string{audit.Opened: ways, audit.Refreshed: ways, audit.Trapped: traps} {
		for _, code := range kind.Row().Codes {
			// An event of many sources names none, so nobody has come in by it.
			if words[code] == "" && code != audit.CodeManySources {
				t.Errorf("%s with the code %s has no words", kind, code)
			}
		}
	}
}

// What others can choose does not control the terminal, nor change the page.
func TestNamesAreEscaped(t *testing.T) {
	name := "<script>alert(1)</script>\x1b[2J\"'&"
	e := audit.Event{Time: ago(time.Hour), Kind: audit.Opened, Door: name, Person: name, Key: name, Source: source("192.0.2.1"), Code: audit.Code(name)}
	trapped := e
	trapped.Kind = audit.Trapped
	r := reportOf(&Known{Doors: []string{name + "2"}, People: []Person{{name + "2", []string{name}}}}, e, trapped)
	if text := r.text(t, 80); strings.Contains(text, "\x1b") {
		t.Errorf("the text has a control character: %q", text)
	}
	check(t, r.page(t))
}

// check checks that a page is well-formed, has no script, and refers to nothing outside.
func check(t *testing.T, page string) {
	t.Helper()
	var open []string
	void := []string{"meta", "th", "td"} // of these, the page leaves out the end
	policy := false
	for z := html.NewTokenizer(strings.NewReader(page)); ; {
		kind := z.Next()
		token := z.Token()
		switch kind {
		case html.ErrorToken:
			if len(open) > 0 {
				t.Errorf("not closed: %v", open)
			}
			if !policy {
				t.Error("the page has no content security policy that forbids scripts and references")
			}
			return
		case html.StartTagToken, html.SelfClosingTagToken:
			if slices.Contains([]string{"script", "link", "img", "image", "iframe", "object", "embed", "base", "a", "use", "form", "foreignobject"}, token.Data) {
				t.Errorf("the page has %s", token)
			}
			for _, a := range token.Attr {
				if strings.HasPrefix(a.Key, "on") || slices.Contains([]string{"src", "href", "xlink:href", "style", "srcset", "action"}, a.Key) {
					t.Errorf("the page has %s", token)
				}
				if a.Key == "content" && strings.HasPrefix(a.Val, "default-src 'none'; style-src 'unsafe-inline'") {
					policy = len(open) == 2 && open[1] == "head" // before everything else
				}
			}
			if kind == html.StartTagToken && !slices.Contains(void, token.Data) {
				open = append(open, token.Data)
			}
		case html.EndTagToken:
			if len(open) == 0 || open[len(open)-1] != token.Data {
				t.Fatalf("%s ends in %v", token, open)
			}
			open = open[:len(open)-1]
		case html.TextToken:
			if len(open) > 0 && open[len(open)-1] == "style" && strings.ContainsAny(token.Data, "@\\") {
				if rest := strings.ReplaceAll(token.Data, "@media", ""); strings.ContainsAny(rest, "@\\") || strings.Contains(rest, "url(") {
					t.Errorf("the style refers to something: %s", rest)
				}
			}
		}
	}
}

func TestPage(t *testing.T) {
	page := reportOf(&known, week()...).page(t)
	check(t, page)
	for _, want := range []string{
		"alice@laptop", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:1", "198.51.100.9", "203.0.113.66", "2001:db8::/64",
		"the journal of knockwall.service", "<li>web", "<li>198.51.100.77 (ssh)", "<li>bob@home (vpn)", "many other sources: 1,500", `class="in"`, `class="out"`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not have %q", want)
		}
	}
	if strings.Contains(page, "192.0.2.99") {
		t.Error("the page has an event from before the period")
	}
	check(t, reportOf(nil).page(t))
}

// Events of ever new sources take a limited amount of memory, and the numbers of
// those that come often are right.
func TestMemoryIsLimited(t *testing.T) {
	c := NewCollector(until.AddDate(-1, 0, 0), until)
	n := 30_000
	address := netip.MustParseAddr("2001:db8::")
	for i := range n {
		b := address.As16()
		b[12], b[13], b[14], b[15] = byte(i>>24), byte(i>>16), byte(i>>8), byte(i)
		e := audit.Event{
			Time: until.Add(-time.Duration(n-i) * time.Minute), Kind: audit.Trapped, Code: audit.CodeTrap, Door: "ssh",
			Source: packet.Source{Prefix: netip.PrefixFrom(netip.AddrFrom16(b), 128)}, Count: 1,
		}
		c.Add(e)
		e.Kind = audit.Opened
		e.Person = fmt.Sprint("p", i)
		c.Add(e)
		if i%10 == 0 {
			e.Kind, e.Source = audit.Trapped, source("192.0.2.1")
			c.Add(e)
		}
	}
	r := c.Report(nil)
	if len(r.Guests) > maxGuests || !r.MoreGuests || len(r.Trapped) > maxTrapped || !r.MoreTrapped {
		t.Errorf("%d guests (more: %t), %d trapped (more: %t)", len(r.Guests), r.MoreGuests, len(r.Trapped), r.MoreTrapped)
	}
	if first := r.Trapped[0]; first.Source != "192.0.2.1" || first.Count != n/10 {
		t.Errorf("the most frequent is %+v", first)
	}
	if first := r.Guests[0]; first.Name != fmt.Sprint("p", n-1) {
		t.Errorf("the latest is %+v", first)
	}
	for _, text := range []string{r.text(t, 80), r.page(t)} {
		if !strings.Contains(text, "too many to keep") {
			t.Error("it is not said that there are more")
		}
	}
}

func TestACalendarHasEachDayOfAZoneWithSummerTime(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("needs the time zones: ", err)
	}
	from, until := time.Date(2026, 10, 24, 12, 0, 0, 0, zone), time.Date(2026, 10, 26, 12, 0, 0, 0, zone)
	c := newCalendar(from, until)
	for at := from; at.Before(until); at = at.Add(time.Hour) {
		c.add(at.UTC(), 1)
	}
	if len(c.Days) != 3 || c.Total() != 49 || c.Days[1].Total() != 25 || c.Days[1].Hours[2] != 2 {
		t.Errorf("the calendar is %+v", c)
	}
}
