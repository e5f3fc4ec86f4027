package systemd

import (
	"bytes"
	"errors"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
)

// The catalog has one entry for each row of the table of events. The entry explains the
// codes of the row, and names only fields that exist.
func TestCatalogExplainsEachEvent(t *testing.T) {
	catalog, err := os.ReadFile("knockwall.catalog")
	if err != nil {
		t.Fatal(err)
	}
	entries := map[string]string{}
	for _, entry := range strings.Split(string(catalog), "\n-- ")[1:] {
		id, text, _ := strings.Cut(entry, "\n")
		if _, ok := entries[id]; ok {
			t.Errorf("the catalog explains %s twice", id)
		}
		entries[id] = text
	}
	for _, row := range audit.Table() {
		text, ok := entries[row.MessageID]
		if !ok {
			t.Errorf("the catalog does not explain %s, %s", row.Kind, row.MessageID)
			continue
		}
		delete(entries, row.MessageID)
		codes, explained := map[string]bool{}, map[string]bool{}
		for _, c := range slices.Concat(row.Codes, row.Failures) {
			codes[string(c)] = true
		}
		for _, word := range regexp.MustCompile(`"([^"]*)"`).FindAllStringSubmatch(text, -1) {
			explained[word[1]] = true
		}
		if diff := cmp.Diff(codes, explained); diff != "" {
			t.Errorf("the codes of %s (-table +catalog):\n%s", row.Kind, diff)
		}
		if says := strings.Contains(text, "KNOCKWALL_FAILED"); says != row.MayFail() {
			t.Errorf("that %s can fail: the catalog says %t", row.Kind, says)
		}
		if subject := regexp.MustCompile(`(?m)^Subject: \S`); !subject.MatchString(text) || !strings.Contains(text, "Defined-By: knockwall\n") {
			t.Errorf("the entry of %s has no head: %s", row.Kind, text)
		}
	}
	for id := range entries {
		t.Errorf("the catalog explains %s, which no event has", id)
	}
	known := fields(everything())
	for _, field := range regexp.MustCompile(`KNOCKWALL_[A-Z]+`).FindAllString(string(catalog), -1) {
		if known[field] == "" {
			t.Errorf("the catalog speaks of %s, which no entry has", field)
		}
	}
	for _, field := range regexp.MustCompile(`@([^@ \n]+)@`).FindAllStringSubmatch(string(catalog), -1) {
		if known[field[1]] == "" {
			t.Errorf("the catalog speaks of %s, which no entry has", field[1])
		}
	}
}

// entry is an entry that was sent to the journal.
type entry struct {
	message  string
	priority journal.Priority
	fields   map[string]string
}

// kept is a sink that keeps its events.
type kept []audit.Event

func (k *kept) Record(e audit.Event) { *k = append(*k, e) }

// Each event is sent with the MESSAGE_ID of its kind and its code. A failed event is
// marked, and has the priority of an error.
func TestEachEventIsSentToTheJournal(t *testing.T) {
	var sent []entry
	var refused kept
	j := toJournal{func(message string, priority journal.Priority, fields map[string]string) error {
		sent = append(sent, entry{message, priority, fields})
		return nil
	}, &refused}
	for _, row := range audit.Table() {
		for _, failed := range []bool{false, true} {
			codes := row.Codes
			if failed {
				codes = row.Failures
			}
			for _, code := range codes {
				e := audit.Event{Kind: row.Kind, Code: code, Failed: failed, Door: "ssh"}
				sent = nil
				j.Record(e)
				want := entry{e.Sentence(), journal.Priority(row.Priority), map[string]string{
					"SYSLOG_IDENTIFIER": "knockwall", "MESSAGE_ID": row.MessageID,
					"KNOCKWALL_EVENT": string(row.Kind), "KNOCKWALL_DOOR": "ssh", "KNOCKWALL_CODE": string(code),
				}}
				if failed {
					want.priority = journal.PriErr
					want.fields["KNOCKWALL_FAILED"] = "true"
				}
				if diff := cmp.Diff([]entry{want}, sent, cmp.AllowUnexported(entry{})); diff != "" {
					t.Errorf("%s (-want +sent):\n%s", e, diff)
				}
			}
		}
	}
	if len(refused) != 0 {
		t.Errorf("these go elsewhere, too: %v", refused)
	}
}

func TestWhatTheJournalDoesNotTakeGoesElsewhere(t *testing.T) {
	var elsewhere kept
	j := toJournal{func(string, journal.Priority, map[string]string) error { return errors.New("no journal") }, &elsewhere}
	want := []audit.Event{everything(), {Kind: audit.Stopped, Failed: true}}
	for _, e := range want {
		j.Record(e)
	}
	if !slices.Equal(elsewhere, want) {
		t.Errorf("elsewhere goes %v, want %v", elsewhere, want)
	}
}

// everything returns an event to which every field applies.
func everything() audit.Event {
	var source packet.Source
	if err := source.UnmarshalText([]byte("2001:db8::7")); err != nil {
		panic(err)
	}
	return audit.Event{
		Time: time.Unix(1700000000, 0), Kind: audit.Opened, Door: "ssh", Source: source, Person: "alice", Key: "SHA256:abc", Origin: "host2",
		Port: packet.Port{Protocol: packet.TCP, Number: 1840}, Step: 3, Steps: 3,
		Code: audit.CodeManual, Reason: "by hand", Window: 2500 * time.Millisecond, Count: 2, Failed: true,
	}
}

func TestFieldsAreThoseOfTheAuditTrail(t *testing.T) {
	e := everything()
	for i := range reflect.TypeFor[audit.Event]().NumField() {
		if f := reflect.TypeFor[audit.Event]().Field(i); reflect.ValueOf(e).Field(i).IsZero() {
			t.Errorf("this test does not know of %s", f.Name)
		}
	}
	want := map[string]string{
		"SYSLOG_IDENTIFIER": "knockwall", "MESSAGE_ID": "fba10c67f0eb4257965a7685ddeee382",
		"KNOCKWALL_EVENT": "opened", "KNOCKWALL_DOOR": "ssh", "KNOCKWALL_SOURCE": "2001:db8::7", "KNOCKWALL_PERSON": "alice", "KNOCKWALL_KEY": "SHA256:abc", "KNOCKWALL_ORIGIN": "host2",
		"KNOCKWALL_PORT": "1840/tcp", "KNOCKWALL_STEP": "3", "KNOCKWALL_STEPS": "3",
		"KNOCKWALL_REASON": "by hand", "KNOCKWALL_WINDOW": "2.5", "KNOCKWALL_COUNT": "2",
		"KNOCKWALL_CODE": "manual", "KNOCKWALL_FAILED": "true",
	}
	if diff := cmp.Diff(want, fields(e)); diff != "" {
		t.Errorf("all fields (-want +got):\n%s", diff)
	}
	want = map[string]string{"SYSLOG_IDENTIFIER": "knockwall", "MESSAGE_ID": "70b8e97b8ea641a1b674fed186bd005c", "KNOCKWALL_EVENT": "started"}
	if diff := cmp.Diff(want, fields(audit.Event{Kind: audit.Started})); diff != "" {
		t.Errorf("those that apply (-want +got):\n%s", diff)
	}
}

func TestEachLineHasItsLevel(t *testing.T) {
	var b bytes.Buffer
	n, err := leveled{&b, []byte("<3>")}.Write([]byte("one\n\n  two\n"))
	if want := "<3>one\n<3>\n<3>  two\n"; b.String() != want || n != 11 || err != nil {
		t.Errorf("%q are written as %d bytes, %v; want %q", b.String(), n, err, want)
	}
	if w := At(&b, Error); w != &b {
		t.Error("what is not stderr gets levels")
	}
}
