package audit_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/audit"
)

// declared returns the constants of a type that a file of this package declares.
func declared(t *testing.T, file, typeName string) (values []string) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := spec.Type.(*ast.Ident); ok && name.Name == typeName {
			for _, v := range spec.Values {
				text, err := strconv.Unquote(v.(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				values = append(values, text)
			}
		}
		return true
	})
	if len(values) == 0 {
		t.Fatalf("%s declares nothing of the type %s", file, typeName)
	}
	slices.Sort(values)
	return values
}

// kinds returns the declared kinds.
func kinds(t *testing.T) (all []audit.Kind) {
	t.Helper()
	for _, text := range declared(t, "table.go", "Kind") {
		all = append(all, audit.Kind(text))
	}
	return all
}

// rowsOf calls f for each possible event: each kind with each of its codes.
func rowsOf(f func(row *audit.Row, e audit.Event)) {
	for _, row := range audit.Table() {
		for _, code := range row.Codes {
			f(row, audit.Event{Time: noon, Kind: row.Kind, Code: code})
		}
		for _, code := range row.Failures {
			f(row, audit.Event{Time: noon, Kind: row.Kind, Code: code, Failed: true})
		}
	}
}

func TestEveryKindHasOneRow(t *testing.T) {
	var rows []string
	ids := map[string]audit.Kind{}
	for _, row := range audit.Table() {
		rows = append(rows, string(row.Kind))
		if row.Kind.Row() != row {
			t.Errorf("%s has another row", row.Kind)
		}
		if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(row.MessageID) {
			t.Errorf("%s has the MESSAGE_ID %q", row.Kind, row.MessageID)
		}
		if other, ok := ids[row.MessageID]; ok {
			t.Errorf("%s and %s have the same MESSAGE_ID", row.Kind, other)
		}
		ids[row.MessageID] = row.Kind
		if row.Priority < audit.Warning || row.Priority > audit.Info {
			t.Errorf("%s has the priority %d", row.Kind, row.Priority)
		}
		if len(row.Codes) == 0 {
			t.Errorf("%s has no code", row.Kind)
		}
		for _, codes := range [][]audit.Code{row.Codes, row.Failures} {
			// A kind that can be summed up has the code many-sources.
			if many := slices.Contains(codes, audit.CodeManySources); many != (row.Class != audit.ByHost) && len(codes) > 0 {
				t.Errorf("%s can be of many sources: %t", row.Kind, many)
			}
			if unique := slices.Compact(slices.Sorted(slices.Values(codes))); len(unique) != len(codes) {
				t.Errorf("%s has a code twice", row.Kind)
			}
		}
	}
	slices.Sort(rows)
	if diff := cmp.Diff(declared(t, "table.go", "Kind"), rows); diff != "" {
		t.Errorf("kinds (-declared +in the table):\n%s", diff)
	}
}

func TestEveryCodeIsInTheTable(t *testing.T) {
	used := map[string]bool{}
	rowsOf(func(_ *audit.Row, e audit.Event) { used[string(e.Code)] = true })
	if diff := cmp.Diff(declared(t, "code.go", "Code"), slices.Sorted(maps.Keys(used))); diff != "" {
		t.Errorf("codes (-declared +in the table):\n%s", diff)
	}
	for code := range used {
		if !regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`).MatchString(code) {
			t.Errorf("%q is no word", code)
		}
	}
}

// Each event has its code in text and JSON, and says whether it failed.
func TestEveryEventHasItsCodeAndWhetherItFailed(t *testing.T) {
	rowsOf(func(row *audit.Row, e audit.Event) {
		want := fmt.Sprintf("2026-03-01T12:00:00.123Z %-10s code=%s", e.Kind, e.Code)
		wantJSON := fmt.Sprintf(`{"time":"2026-03-01T12:00:00.123456789Z","event":%q,"code":%q`, e.Kind, e.Code)
		if e.Failed {
			want += " failed=true"
			wantJSON += `,"failed":true`
		}
		if e.String() != want {
			t.Errorf("as text it is %q, want %q", e, want)
		}
		if got, err := json.Marshal(e); string(got) != wantJSON+"}" || err != nil {
			t.Errorf("as JSON it is %s, %v; want %s}", got, err, wantJSON)
		}
		wantPriority := row.Priority
		if e.Failed {
			wantPriority = 3
		}
		if e.Priority() != wantPriority {
			t.Errorf("%s has the priority %d, want %d", e, e.Priority(), wantPriority)
		}
		if row.MayFail() != (len(row.Failures) > 0) || !row.Can(e.Code, e.Failed) || row.Can("else", e.Failed) {
			t.Errorf("the row of %s does not know its codes", e)
		}
	})
}

func TestEventsThatAnAdministratorMustKnowOfAreWarnings(t *testing.T) {
	for _, row := range audit.Table() {
		must := slices.Contains([]audit.Kind{audit.Overloaded, audit.Healed, audit.Replayed, audit.Low}, row.Kind)
		if (row.Priority == audit.Warning) != must {
			t.Errorf("%s has the priority %d", row.Kind, row.Priority)
		}
	}
}

func TestCountsAreOfEachKind(t *testing.T) {
	var c audit.Counts
	for n, row := range audit.Table() {
		for range n + 1 {
			c.Add(row.Kind)
		}
	}
	c.Add("something new")
	for n, row := range audit.Table() {
		if got := c.Of(row.Kind); got != uint64(n+1) {
			t.Errorf("%d of %s are counted, want %d", got, row.Kind, n+1)
		}
	}
	if got := c.Of("something new"); got != 0 {
		t.Errorf("%d are counted of a kind that there is not", got)
	}
}

// Kinds that share a metric have different labels, and the same name and help.
func TestKindsThatShareAMetricDifferByItsLabels(t *testing.T) {
	first := map[string]*audit.Metric{}
	seen := map[string]audit.Kind{}
	for _, row := range audit.Table() {
		m := row.Metric
		if m == nil {
			continue
		}
		if m.ByDoor != (row.Class != audit.ByHost) || m.Help == "" || len(m.Labels) != len(m.Values) {
			t.Errorf("%s is counted by %+v", row.Kind, m)
		}
		key := m.Name + " " + strings.Join(m.Values, " ")
		if other, ok := seen[key]; ok {
			t.Errorf("%s and %s are counted as one", row.Kind, other)
		}
		seen[key] = row.Kind
		if before := first[m.Name]; before != nil && (before.Help != m.Help || !slices.Equal(before.Labels, m.Labels)) {
			t.Errorf("%s describes %s otherwise", row.Kind, m.Name)
		}
		first[m.Name] = m
	}
}

// The page of the control socket lists the codes of each kind.
func TestThePageListsTheCodesOfEachKind(t *testing.T) {
	page, err := os.ReadFile("../control/API.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "| event | codes | codes of failed ones |\n| --- | --- | --- |\n")
	text, _, _ = strings.Cut(text, "\n\n")
	cell := func(codes []audit.Code) string {
		var quoted []string
		for _, c := range codes {
			if c != audit.CodeManySources { // the page explains this code separately
				quoted = append(quoted, "`"+string(c)+"`")
			}
		}
		return strings.Join(quoted, ", ")
	}
	var want []string
	for _, row := range audit.Table() {
		want = append(want, fmt.Sprintf("| `%s` | %s | %s |", row.Kind, cell(row.Codes), cell(row.Failures)))
	}
	got := strings.Split(text, "\n")
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-table +page):\n%s", diff)
	}
	if !strings.Contains(string(page), "`"+string(audit.CodeManySources)+"`") {
		t.Errorf("the page does not name %s", audit.CodeManySources)
	}
}

// The manual page names all kinds and fields.
func TestTheManualPageNamesEveryKindAndField(t *testing.T) {
	page, err := os.ReadFile("../../docs/knockwall.8.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "\n## Events\n")
	text, _, _ = strings.Cut(text, "\n## ")
	for _, row := range audit.Table() {
		if !regexp.MustCompile(`\b` + string(row.Kind) + `\b`).MatchString(text) {
			t.Errorf("the page does not name the kind %s", row.Kind)
		}
	}
	for _, field := range []string{"DOOR", "SOURCE", "PORT", "STEP", "STEPS", "WINDOW", "COUNT", "CODE", "FAILED", "REASON"} {
		if !regexp.MustCompile(`\bKNOCKWALL_` + field + `\b`).MatchString(text) {
			t.Errorf("the page does not name KNOCKWALL_%s", field)
		}
	}
}
