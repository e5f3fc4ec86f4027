package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"github.com/knockwall/knockwall/internal/printable"
)

// The layout of the plot, in pixels. Panels are in two columns.
const (
	plotWidth   = 1000
	margin      = 24
	gutter      = 32
	panelWidth  = (plotWidth - 2*margin - gutter) / 2
	headHeight  = 112
	panelGap    = 28 // between two lines of panels
	plotColumns = 2
)

// style has light and dark colors. A viewer that does not know the media query shows the
// light ones. The style loads no font.
const style = `
text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #24292f; }
.name { font-size: 21px; font-weight: 600; }
.title { font-size: 14px; font-weight: 600; }
.own { font-weight: 600; }
.soft { fill: #636c76; }
.small { font-size: 11px; }
.met { fill: #1a7f37; }
.missed { fill: #cf222e; font-weight: 600; }
.right { text-anchor: end; }
.middle { text-anchor: middle; }
.back { fill: #ffffff; }
.grid { stroke: #d8dee4; }
.bar { fill: #afb8c1; }
.bar.own { fill: #0969da; }
.mark { stroke: #24292f; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .soft { fill: #9198a1; }
  .met { fill: #3fb950; }
  .missed { fill: #f85149; }
  .back { fill: #0d1117; }
  .grid { stroke: #30363d; }
  .bar { fill: #57606a; }
  .bar.own { fill: #388bfd; }
  .mark { stroke: #e6edf3; }
}
`

// WriteSVG writes the report as one plot with a panel for each row. The file is
// self-contained: no script, no font and no other file.
func (r *Report) WriteSVG(w io.Writer) error {
	var panels canvas
	y := headHeight
	for i := 0; i < len(r.Rows); i += plotColumns {
		tallest := 0
		for j, row := range r.Rows[i:min(i+plotColumns, len(r.Rows))] {
			x := margin + j*(panelWidth+gutter)
			panels.printf(`<g transform="translate(%d %d)">`+"\n", x, y)
			tallest = max(tallest, panels.panel(row))
			panels.printf("</g>\n")
		}
		y += tallest + panelGap
	}

	var c canvas
	c.printf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img">`+"\n", plotWidth, y)
	c.printf("<style>%s</style>\n", style)
	c.printf(`<rect class="back" width="%d" height="%d"/>`+"\n", plotWidth, y)
	c.head(r)
	c.Write(panels.Bytes())
	c.printf("</svg>\n")
	if _, err := w.Write(c.Bytes()); err != nil {
		return fmt.Errorf("writing the report as SVG: %w", err)
	}
	return nil
}

// canvas collects SVG elements.
type canvas struct{ bytes.Buffer }

func (c *canvas) printf(format string, args ...any) { fmt.Fprintf(c, format, args...) }

// text draws a text with its baseline at y.
func (c *canvas) text(x, y float64, class, text string) {
	c.printf(`<text x="%s" y="%s" class="%s">%s</text>`+"\n", at(x), at(y), class, escape(text))
}

// line draws a line.
func (c *canvas) line(x1, y1, x2, y2 float64, class string) {
	c.printf(`<line x1="%s" y1="%s" x2="%s" y2="%s" class="%s"/>`+"\n", at(x1), at(y1), at(x2), at(y2), class)
}

// at formats a coordinate to a tenth of a pixel.
func at(v float64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0")
}

// escape escapes a text for XML and removes characters that XML forbids.
func escape(text string) string {
	var b bytes.Buffer
	xml.EscapeText(&b, []byte(plain(text))) // a Buffer never fails
	return b.String()
}

// head draws the commit, date and machine of the run, and the legend.
func (c *canvas) head(r *Report) {
	run := r.Commit + ", " + r.Began.UTC().Format("2 January 2006")
	if r.Quick {
		run += ", a quick run"
	}
	m := r.Machine
	c.printf("<title>%s</title>\n", escape("knockwall "+run))
	c.text(margin, 40, "name", "knockwall beside others")
	c.text(plotWidth-margin, 40, "right", printable.Cut(plain(run), 90))
	c.text(margin, 62, "soft", printable.Cut(plain(fmt.Sprintf("%s, %s, %d MiB · %s, Linux %s · load %.2f",
		m.CPU, cores(m.Cores), m.MemoryMiB, m.System, m.Kernel, m.Load)), 140))
	c.text(margin, 80, "soft", printable.Cut(plain(m.versions()), 100))

	const x, y = plotWidth - margin - 178, 76
	c.printf(`<rect x="%d" y="%d" width="60" height="8" rx="2" class="bar own"/>`+"\n", x, y-4)
	c.whisker(x+60, x+105, x+150, y)
	c.text(x+60, y+20, "soft small middle", "median")
	c.text(x+105, y+20, "soft small middle", "p95")
	c.text(x+150, y+20, "soft small middle", "p99")
}

// whisker draws the slow samples, from the end of the bar: the low mark is p95, the tall mark
// at the end is p99.
func (c *canvas) whisker(median, p95, p99, y float64) {
	c.line(median, y, p99, y, "mark")
	c.line(p95, y-3, p95, y+3, "mark")
	c.line(p99, y-6, p99, y+6, "mark")
}
