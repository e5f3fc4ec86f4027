package monitoring

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

// dashboard has the names of a dashboard that ours uses. Source: "Dashboard JSON model" in the
// documentation of Grafana. Grafana ignores names that it does not know, so a misspelt one would
// be lost without a word.
type dashboard struct {
	ID            *int   `json:"id"`
	UID           string `json:"uid"`
	Title         string `json:"title"`
	Description   string `json:"description"`
	Tags          []string
	SchemaVersion int `json:"schemaVersion"`
	Version       int
	Editable      bool
	Timezone      string
	Refresh       string
	Time          struct{ From, To string }
	Templating    struct{ List []variable }
	Panels        []panel
}

type variable struct {
	Name, Label, Type string
	Query             json.RawMessage
	Datasource        *source
	Refresh, Sort     int
	Multi, IncludeAll bool
	AllValue          string
	Current           json.RawMessage
}

type source struct {
	Type string
	UID  string `json:"uid"`
}

type panel struct {
	ID                 int `json:"id"`
	Type               string
	Title, Description string
	Datasource         source
	GridPos            struct{ X, Y, W, H int }
	Targets            []target
	FieldConfig        struct {
		Defaults struct {
			Unit             string
			Min, Max         *float64
			Custom, Mappings json.RawMessage
		}
		Overrides []json.RawMessage
	}
	Options         json.RawMessage
	Transformations []struct {
		ID      string `json:"id"`
		Options json.RawMessage
	}
}

type target struct {
	RefID              string `json:"refId"`
	Datasource         source
	Expr, LegendFormat string
	Format             string
	Instant, Range     bool
}

// units are those of Grafana that the dashboard uses. It shows numbers in any other unit with
// the unit's name behind them.
var units = []string{"cps", "dateTimeFromNow", "ops", "percentunit", "pps", "s", "short"}

// Grafana can read the dashboard, and shows all of it on any screen: no panel lies over another
// one or outside of the 24 columns, and each names a source of data that the reader chooses.
func TestTheDashboardIsOneOfGrafana(t *testing.T) {
	text, err := os.ReadFile(dashboardFile)
	lab.Must(t, err)
	var d dashboard
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	lab.Must(t, decoder.Decode(&d))
	// Grafana makes the id itself, and would replace another dashboard that has it.
	if d.ID != nil || !regexp.MustCompile(`^[A-Za-z0-9_-]{1,40}$`).MatchString(d.UID) || d.Title == "" || d.SchemaVersion < 36 {
		t.Errorf("id %v, uid %q, title %q, schemaVersion %d", d.ID, d.UID, d.Title, d.SchemaVersion)
	}
	variables := map[string]bool{"__rate_interval": true}
	for _, v := range d.Templating.List {
		variables[v.Name] = true
		switch v.Type {
		case "datasource":
			if string(v.Query) != `"prometheus"` {
				t.Errorf("the variable %s chooses among sources of the type %s", v.Name, v.Query)
			}
		case "query":
			checkSource(t, v.Name, v.Datasource, d.Templating.List)
		default:
			t.Errorf("the variable %s is of the type %q, which this test does not know", v.Name, v.Type)
		}
	}
	for _, m := range regexp.MustCompile(`\$\{?(\w+)`).FindAllStringSubmatch(string(text), -1) {
		if name := m[1]; !variables[name] && name != "__all" {
			t.Errorf("there is no variable %s", name)
		}
	}
	for i, p := range d.Panels {
		checkPanel(t, p, d.Templating.List)
		for _, other := range d.Panels[:i] {
			a, b := p.GridPos, other.GridPos
			if p.ID == other.ID {
				t.Errorf("%q and %q have one id", p.Title, other.Title)
			}
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("%q lies over %q", p.Title, other.Title)
			}
		}
	}
}

// checkPanel checks what a panel must have, without its place among the others.
func checkPanel(t *testing.T, p panel, variables []variable) {
	t.Helper()
	at := p.GridPos
	if p.ID < 1 || p.Title == "" || at.X < 0 || at.Y < 0 || at.W < 1 || at.H < 1 || at.X+at.W > 24 {
		t.Errorf("panel %d, %q, is at %+v", p.ID, p.Title, at)
	}
	if !slices.Contains([]string{"stat", "table", "timeseries"}, p.Type) { // that Grafana has without a plugin
		t.Errorf("%q is of the type %q", p.Title, p.Type)
	}
	if unit := p.FieldConfig.Defaults.Unit; unit != "" && !slices.Contains(units, unit) {
		t.Errorf("%q has the unit %q", p.Title, unit)
	}
	checkSource(t, p.Title, &p.Datasource, variables)
	var refs []string
	for _, q := range p.Targets {
		checkSource(t, p.Title, &q.Datasource, variables)
		if q.RefID == "" || slices.Contains(refs, q.RefID) || q.Instant && q.Range {
			t.Errorf("%q: query %q; instant: %t, range: %t", p.Title, q.RefID, q.Instant, q.Range)
		}
		refs = append(refs, q.RefID)
	}
}

// checkSource checks that a source of data is the one that the reader has chosen.
func checkSource(t *testing.T, where string, s *source, variables []variable) {
	t.Helper()
	if s == nil || s.Type != "prometheus" || !slices.ContainsFunc(variables, func(v variable) bool {
		return v.Type == "datasource" && s.UID == "${"+v.Name+"}"
	}) {
		t.Errorf("%s asks %+v", where, s)
	}
}
