package report

import (
	"fmt"
	"math"

	"github.com/knockwall/knockwall/internal/printable"
)

// The layout of a panel, in pixels: the systems' names, the bars, then a column of values and
// a column of ratios, both right-aligned.
const (
	barsFrom  = 118
	barsTo    = panelWidth - 138
	valuesTo  = panelWidth - 58
	ratiosTo  = panelWidth
	titleStep = 18
	barsTop   = 46 // with a title of one line
	barStep   = 22
	barHeight = 12
	goalStep  = 17
)

// How many letters fit in DejaVu Sans, which is a wide font.
const (
	titleLetters  = 54
	systemLetters = 17
	valueLetters  = 10
	goalLetters   = 52
)

// panel draws the row at the origin and returns its height.
func (c *canvas) panel(r Row) int {
	title := wrap(r.Title, titleLetters)
	for i, line := range title {
		c.text(0, float64(13+titleStep*i), "title", line)
	}
	top := float64(barsTop + titleStep*(len(title)-1))
	bottom := top + float64(barStep*len(r.Cells))
	s, unit := r.scale()
	c.text(barsFrom, top-14, "soft small", s.name)
	c.text(valuesTo, top-14, "soft small right", printable.Cut(plain(unit), valueLetters))
	if r.timed() {
		c.text(ratiosTo, top-14, "soft small right", "ratio")
	}
	for _, t := range s.ticks {
		x := s.x(t.at)
		c.line(x, top-4, x, bottom, "grid")
		c.text(x, bottom+14, "soft small middle", t.label)
	}
	for i, cell := range r.Cells {
		c.system(r, cell, s, top+float64(barStep*i)+barStep/2)
	}
	y := bottom + 20
	for _, g := range r.Goals {
		word, got := r.state(g)
		text := word + ": " + g.Text
		if got != "" {
			text += " (" + got + ")"
		}
		for _, line := range wrap(text, goalLetters) {
			y += goalStep
			c.text(barsFrom, y, goalClass(word), line)
		}
	}
	return int(y)
}

// goalClass returns the CSS class for the state of a goal.
func goalClass(word string) string {
	switch word {
	case met:
		return "small met"
	case missed:
		return "small missed"
	}
	return "small soft"
}

// system draws the result of one system, centered at y.
func (c *canvas) system(r Row, cell Cell, s scale, y float64) {
	own := ""
	if cell.System == Knockwall {
		own = " own"
	}
	c.printf("<g>\n")
	defer c.printf("</g>\n")
	if cell.Note != "" {
		c.printf("<title>%s</title>\n", escape(cell.Note))
	}
	c.text(barsFrom-8, y+4, "right"+own, printable.Cut(plain(cell.System), systemLetters))
	value, label, beside := cell.Median, figure(cell.Median), r.times(cell)
	if !r.timed() && cell.Of > 0 {
		value = float64(cell.Done) / float64(cell.Of)
		label = fmt.Sprintf("%d/%d", cell.Done, cell.Of)
		// Rounded down: only all clients are 100%.
		beside = fmt.Sprintf("%g%%", math.Floor(1000*float64(cell.Done)/float64(cell.Of))/10)
	} else if value == 0 {
		c.text(barsFrom+6, y+4, "small soft", "not measured")
		return
	}
	end := s.x(value)
	c.printf(`<rect x="%d" y="%s" width="%s" height="%d" rx="2" class="bar%s"/>`+"\n",
		barsFrom, at(y-barHeight/2), at(end-barsFrom), barHeight, own)
	if r.timed() && cell.P99 > cell.Median {
		c.whisker(end, s.x(cell.P95), s.x(cell.P99), y)
	}
	c.text(valuesTo, y+4, "right"+own, printable.Cut(label, valueLetters))
	c.text(ratiosTo, y+4, "right soft", beside)
}
