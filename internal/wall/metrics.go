package wall

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/knockwall/knockwall/internal/audit"
)

// metrics are the histograms, which are measured where things happen. All other metrics
// are read from the status on request, and cost nothing per packet.
type metrics struct {
	opening             prometheus.Histogram
	verdicts            *prometheus.HistogramVec
	admitted, strangers prometheus.Observer // children of verdicts
}

func newMetrics() *metrics {
	m := &metrics{
		opening: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "knockwall_opening_seconds",
			Help:    "Time from reading the last knock to its open window in the kernel.",
			Buckets: prometheus.ExponentialBuckets(50e-6, 2, 14), // to 0.4 s
		}),
		verdicts: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "knockwall_verdict_seconds",
			Help:    "Time from reading the first packet of a connection to its verdict.",
			Buckets: prometheus.ExponentialBuckets(1e-6, 4, 11), // to 1 s
		}, []string{"lane"}),
	}
	m.admitted = m.verdicts.WithLabelValues("admitted")
	m.strangers = m.verdicts.WithLabelValues("strangers")
	return m
}

// observeOpening is an observer: it measures how long it took to open a window.
func (m *metrics) observeOpening(e windowEvent) {
	if (e.Kind == audit.Opened || e.Kind == audit.Refreshed) && e.Code != audit.CodeManual {
		m.opening.Observe(time.Since(e.Time).Seconds())
	}
}

// The metrics that are read from the status, except those that count events.
var (
	byDoor = []string{"door"}

	leftMetric      = describe("one_time_sequences_left", "Unused sequences of the list.", byDoor)
	openMetric      = describe("windows_open", "Windows that are open now.", byDoor)
	verdictsMetric  = eventMetrics[audit.VerdictsMetric]
	heldMetric      = describe("held_total", "First packets of sources without a window that were held to wait for a knock.", byDoor)
	kernelMetric    = describe("kernel_packets_total", "Packets that the kernel's rules have counted, including those over rate limits.", []string{"door", "verdict"})
	waitingMetric   = describe("waiting", "Packets that are held now.", nil)
	attemptsMetric  = describe("attempts", "Attempts in the tracker now.", nil)
	evictedMetric   = describe("evicted_total", "Attempts dropped for newer ones.", nil)
	lostMetric      = describe("lost_total", "Logged or queued packets that could not be read in time.", nil)
	findingsMetric  = describe("findings", "Findings about conditions that make a door ineffective or weaker.", []string{"check", "door", "severity"})
	bareMetric      = describe("door_bare", "1 for a door that guards nothing on this host, else 0.", byDoor)
	differMetric    = describe("rule_files_differ", "1 if the rule files differ from the rules in force, else 0.", nil)
	trackedMetric   = describe("conntrack_entries", "Connections in conntrack's table, read some seconds ago.", nil)
	limitMetric     = describe("conntrack_limit", "Maximum of connections in conntrack's table, above which the kernel drops new ones; 0 if unknown.", nil)
	startedMetric   = describe("start_time_seconds", "When the daemon installed the wall, in seconds since 1970.", nil)
	collectedByDoor = []*prometheus.Desc{leftMetric, openMetric, heldMetric, kernelMetric, bareMetric}
	collected       = []*prometheus.Desc{waitingMetric, attemptsMetric, evictedMetric, lostMetric, trackedMetric, limitMetric, differMetric, startedMetric, findingsMetric}
)

func describe(name, help string, labels []string) *prometheus.Desc {
	return prometheus.NewDesc("knockwall_"+name, help, labels, nil)
}

// eventMetrics describes the metrics that count events, by their names in the table of
// events.
var eventMetrics = func() map[string]*prometheus.Desc {
	all := map[string]*prometheus.Desc{}
	for _, row := range audit.Table() {
		m := row.Metric
		if m == nil || all[m.Name] != nil {
			continue
		}
		var labels []string
		if m.ByDoor {
			labels = append(labels, byDoor...)
		}
		all[m.Name] = describe(m.Name, m.Help, append(labels, m.Labels...))
	}
	return all
}()

// Describe implements [prometheus.Collector].
func (w *Wall) Describe(to chan<- *prometheus.Desc) {
	for _, d := range eventMetrics {
		to <- d
	}
	for _, d := range collectedByDoor {
		to <- d
	}
	for _, d := range collected {
		to <- d
	}
	w.metrics.opening.Describe(to)
	w.metrics.verdicts.Describe(to)
}

// Collect implements [prometheus.Collector].
func (w *Wall) Collect(to chan<- prometheus.Metric) {
	w.metrics.opening.Collect(to)
	w.metrics.verdicts.Collect(to)
	s, events, err := w.measure()
	if err != nil {
		to <- prometheus.NewInvalidMetric(startedMetric, err)
		return
	}
	total := func(d *prometheus.Desc, n uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	now := func(d *prometheus.Desc, n float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n, labels...)
	}
	open := map[string]int{}
	for _, win := range s.Windows {
		open[win.Door]++
	}
	found := map[[3]string]int{}
	for _, f := range s.Findings {
		found[[3]string{f.Check, f.Door, string(f.Severity)}]++
	}
	for labels, n := range found {
		now(findingsMetric, float64(n), labels[:]...)
	}
	countEvents := func(counts *audit.Counts, byDoor bool, door ...string) {
		for _, row := range audit.Table() {
			if m := row.Metric; m != nil && m.ByDoor == byDoor {
				total(eventMetrics[m.Name], counts.Of(row.Kind), slices.Concat(door, m.Values)...)
			}
		}
	}
	countEvents(&events.host, false)
	for i, d := range s.Doors {
		c := d.Counters
		countEvents(&events.doors[i], true, d.Name)
		bare := 0.0
		if d.Bare {
			bare = 1
		}
		now(bareMetric, bare, d.Name)
		if d.SequencesLeft != nil {
			now(leftMetric, float64(*d.SequencesLeft), d.Name)
		}
		now(openMetric, float64(open[d.Name]), d.Name)
		total(verdictsMetric, c.Exhausted, d.Name, "admitted", "refuse")
		total(verdictsMetric, c.Released, d.Name, "strangers", "repeat")
		total(heldMetric, c.Held, d.Name)
		total(kernelMetric, c.KernelAdmitted, d.Name, "admitted")
		total(kernelMetric, c.KernelRefused, d.Name, "refused")
	}
	now(waitingMetric, float64(s.Counters.Waiting))
	now(attemptsMetric, float64(s.Counters.Attempts))
	total(evictedMetric, s.Counters.Evicted)
	total(lostMetric, s.Counters.Lost)
	differ := 0.0
	if s.FilesDiffer {
		differ = 1
	}
	now(differMetric, differ)
	now(trackedMetric, float64(s.Counters.Tracked))
	now(limitMetric, float64(s.Counters.TrackedLimit))
	now(startedMetric, float64(s.Since.UnixNano())/float64(time.Second))
}
