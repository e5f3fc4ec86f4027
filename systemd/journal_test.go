package systemd

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
)

// What the catalog explains is what the journal is told, no more and no less, and
// by fields that there are.
func TestCatalogExplainsEachMessage(t *testing.T) {
	catalog, err := os.ReadFile("knockwall.catalog")
	if err != nil {
		t.Fatal(err)
	}
	var explained, sent []string
	for _, id := range regexp.MustCompile(`(?m)^-- (.*)$`).FindAllSubmatch(catalog, -1) {
		explained = append(explained, string(id[1]))
	}
	for kind, m := range messages {
		sent = append(sent, m.id)
		if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(m.id) {
			t.Errorf("%s has the MESSAGE_ID %q", kind, m.id)
		}
	}
	slices.Sort(explained)
	slices.Sort(sent)
	if diff := cmp.Diff(sent, explained); diff != "" {
		t.Errorf("sent and explained (-sent +explained):\n%s", diff)
	}
	known := fields(everything())
	for _, field := range regexp.MustCompile(`@([A-Z_]+)@`).FindAllSubmatch(catalog, -1) {
		if known[string(field[1])] == "" {
			t.Errorf("the catalog speaks of %s, which no entry has", field[1])
		}
	}
}

// A kind that nobody has thought of here would be sent as an emergency, and without
// a MESSAGE_ID.
func TestEachKindHasAMessage(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../internal/audit/event.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := map[audit.Kind]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "Kind" {
			text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			declared[audit.Kind(text)] = true
		}
		return true
	})
	sent := map[audit.Kind]bool{}
	ids := map[string]audit.Kind{}
	for kind, m := range messages {
		sent[kind] = true
		if other, ok := ids[m.id]; ok {
			t.Errorf("%s and %s have the same MESSAGE_ID", kind, other)
		}
		ids[m.id] = kind
	}
	if diff := cmp.Diff(declared, sent); diff != "" {
		t.Errorf("kinds (-declared +sent):\n%s", diff)
	}
}

// everything is an event to which every field applies.
func everything() audit.Event {
	var source packet.Source
	if err := source.UnmarshalText([]byte("2001:db8::7")); err != nil {
		panic(err)
	}
	return audit.Event{
		Time: time.Unix(1700000000, 0), Kind: audit.Opened, Door: "ssh", Source: source,
		Port: packet.Port{Protocol: packet.TCP, Number: 1840}, Step: 3, Steps: 3,
		Reason: "by hand", Window: 2500 * time.Millisecond, Count: 2,
	}
}

func TestFieldsAreThoseOfTheAuditTrail(t *testing.T) {
	e := everything()
	for i := range reflect.TypeFor[audit.Event]().NumField() {
		if f := reflect.TypeFor[audit.Event]().Field(i); f.Name != "Failed" && reflect.ValueOf(e).Field(i).IsZero() {
			t.Errorf("this test does not know of %s", f.Name)
		}
	}
	want := map[string]string{
		"SYSLOG_IDENTIFIER": "knockwall", "MESSAGE_ID": messages[audit.Opened].id,
		"KNOCKWALL_EVENT": "opened", "KNOCKWALL_DOOR": "ssh", "KNOCKWALL_SOURCE": "2001:db8::7",
		"KNOCKWALL_PORT": "1840/tcp", "KNOCKWALL_STEP": "3", "KNOCKWALL_STEPS": "3",
		"KNOCKWALL_REASON": "by hand", "KNOCKWALL_WINDOW": "2.5", "KNOCKWALL_COUNT": "2",
	}
	if diff := cmp.Diff(want, fields(e)); diff != "" {
		t.Errorf("all fields (-want +got):\n%s", diff)
	}
	want = map[string]string{"SYSLOG_IDENTIFIER": "knockwall", "MESSAGE_ID": messages[audit.Started].id, "KNOCKWALL_EVENT": "started"}
	if diff := cmp.Diff(want, fields(audit.Event{Kind: audit.Started})); diff != "" {
		t.Errorf("those that apply (-want +got):\n%s", diff)
	}
}

func TestWhatAnAdminMustKnowIsAWarningAtLeast(t *testing.T) {
	for kind, m := range messages {
		must := kind == audit.Overloaded || kind == audit.Healed || kind == audit.Replayed || kind == audit.Low
		if (m.priority <= journal.PriWarning) != must {
			t.Errorf("%s has the priority %d", kind, m.priority)
		}
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
