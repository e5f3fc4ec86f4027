package report

import (
	_ "embed"
	"html/template"
	"io"
	"time"

	"github.com/knockwall/knockwall/internal/printable"
)

// How much of a list the page has at most.
const (
	pageRows   = 500
	pageStrips = 40
	pageDays   = 92
)

//go:embed page.html
var pageText string

// The template escapes everything by its context. The page has no script and loads nothing,
// and its content security policy forbids both.
var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"number": number, "short": short, "count": printable.Count,
}).Parse(pageText))

// WritePage writes the report as a page in HTML. origin says where the events are from.
func (r *Report) WritePage(w io.Writer, origin string) error {
	return pageTemplate.Execute(w, newPage(r, origin))
}

// page is what the template shows.
type page struct {
	*Report
	Origin  string
	Remarks []string
	zone    *time.Location

	Rows       []Guest // of the table
	OtherRows  int
	Strips     strips
	Hours      chart
	Map        heatMap
	TrapRows   []Trapped
	OtherTraps int
	Absent     []string
}

func newPage(r *Report, origin string) *page {
	p := &page{Report: r, Origin: origin, Remarks: r.remarks(), zone: r.Until.Location(), Absent: r.unseen()}
	p.Rows = r.Guests[:min(pageRows, len(r.Guests))]
	p.OtherRows = len(r.Guests) - len(p.Rows)
	p.TrapRows = r.Trapped[:min(pageRows, len(r.Trapped))]
	p.OtherTraps = len(r.Trapped) - len(p.TrapRows)
	p.Strips = newStrips(r, p.zone)
	p.Hours = newChart(&r.Refusals)
	p.Map = newHeatMap(&r.Refusals)
	return p
}

// Connections returns how many connections of a guest were let in.
func (p *page) Connections(g Guest) string { return g.connections() }

// AboutTrusted explains why no connections of some guests are counted.
func (p *page) AboutTrusted() string { return p.aboutTrusted() }

// AboutUnused is about the doors that nobody has opened.
func (p *page) AboutUnused() string { return p.aboutUnused() }

// IdleNames returns the sources for which a door was opened by hand in vain.
func (p *page) IdleNames() []string { return p.idle() }

// Moment returns a time as the text of the report has it.
func (p *page) Moment(t time.Time) string { return moment(t, p.zone) }

// Sources returns where a guest came from.
func (p *page) Sources(g Guest) string { return g.from(maxSources) }

// Who returns who a guest is.
func (p *page) Who(g Guest) string { return printable.Escape(g.Who()) }

// The sizes of the plots, in the units of their viewBox.
const (
	stripWidth  = 4 // of a slot
	stripHeight = 18
	stripLeft   = 210
	mapCell     = 22
	mapHeight   = 16
	mapLeft     = 90
	mapRight    = 90
	barHeight   = 120
)

// strips are a line for each guest, with a mark for each slot in which the guest came.
type strips struct {
	Width, Height int
	Bottom        int
	Lines         []strip
	Ticks         []tick
}

type strip struct {
	Y     int
	Label string
	Marks []int // x
}

type tick struct {
	X     int
	Label string
}

func newStrips(r *Report, zone *time.Location) strips {
	s := strips{Width: stripLeft + slots*stripWidth + 10}
	for i, g := range r.Guests[:min(pageStrips, len(r.Guests))] {
		line := strip{Y: i * stripHeight, Label: printable.Cut(printable.Escape(g.Who()+" · "+g.Door), 30)}
		for slot, active := range g.Active {
			if active {
				line.Marks = append(line.Marks, stripLeft+slot*stripWidth)
			}
		}
		s.Lines = append(s.Lines, line)
	}
	s.Bottom = len(s.Lines) * stripHeight
	s.Height = s.Bottom + 24
	// A line at some midnights, at most eight.
	period := r.Until.Sub(r.From)
	step := max(1, int(period.Hours()/24+7)/8)
	year, month, day := r.From.In(zone).Date()
	for d := day + 1; ; d += step {
		midnight := time.Date(year, month, d, 0, 0, 0, 0, zone)
		if !midnight.Before(r.Until) {
			break
		}
		x := stripLeft + int(float64(slots*stripWidth)*float64(midnight.Sub(r.From))/float64(period))
		s.Ticks = append(s.Ticks, tick{x, midnight.Format("2 Jan")})
	}
	return s
}

// chart is a bar for each hour of the day, above the hours of the heatMap.
type chart struct {
	Left, Right, Bottom int
	Width, Height       int
	Bars                []bar
}

type bar struct {
	X, Y, Width, Height int
	Hour, Count         int
	Middle              int
}

func newChart(c *Calendar) chart {
	var hours [24]int
	most := 1
	for _, d := range c.Days {
		for h, n := range d.Hours {
			hours[h] += n
			most = max(most, hours[h])
		}
	}
	ch := chart{Left: mapLeft, Right: mapLeft + 24*mapCell, Width: mapLeft + 24*mapCell + mapRight, Height: barHeight + 20, Bottom: barHeight}
	for h, n := range hours {
		height := n * (barHeight - 14) / most
		if n > 0 {
			height = max(height, 1)
		}
		ch.Bars = append(ch.Bars, bar{X: mapLeft + h*mapCell, Y: barHeight - height, Width: mapCell - 2, Height: height, Hour: h, Count: n, Middle: mapLeft + h*mapCell + mapCell/2})
	}
	return ch
}

// heatMap is a line for each day, with a cell for each hour.
type heatMap struct {
	Width, Height int
	Days          []mapDay
	Before        int // refused before the days that are shown
}

type mapDay struct {
	Y, Text, TotalX int
	Label           string
	Total           int
	Cells           []mapCellOf
}

type mapCellOf struct {
	X, Width, Height, Hour, Count int
	Opacity                       float64
}

func newHeatMap(c *Calendar) heatMap {
	days := c.Days[max(0, len(c.Days)-pageDays):]
	m := heatMap{Width: mapLeft + 24*mapCell + mapRight, Height: len(days)*mapHeight + 4}
	shown := Calendar{Days: days}
	m.Before = c.Total() - shown.Total()
	most := max(1, shown.Most())
	for i, d := range days {
		day := mapDay{Y: i * mapHeight, Text: i*mapHeight + mapHeight - 4, TotalX: mapLeft + 24*mapCell + 8, Label: d.Date.Format("Mon 2 Jan"), Total: d.Total()}
		for h, n := range d.Hours {
			opacity := 0.0
			if n > 0 {
				opacity = 0.15 + 0.85*scaled(n, most)
			}
			day.Cells = append(day.Cells, mapCellOf{mapLeft + h*mapCell, mapCell - 2, mapHeight - 2, h, n, opacity})
		}
		m.Days = append(m.Days, day)
	}
	return m
}
