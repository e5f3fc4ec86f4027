package wall

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/knockwall/knockwall/internal/audit"
)

// metrics are those that are measured where it happens. All others are read
// from the status when they are asked for, so that they cost the packets nothing.
type metrics struct {
	opening             prometheus.Histogram
	verdicts            *prometheus.HistogramVec
	admitted, strangers prometheus.Observer // of verdicts
}

func newMetrics() *metrics {
	m := &metrics{
		opening: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "knockwall_opening_seconds",
			Help:    "From the last knock, as it is read, to its window in the kernel.",
			Buckets: prometheus.ExponentialBuckets(50e-6, 2, 14), // to 0.4 s
		}),
		verdicts: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "knockwall_verdict_seconds",
			Help:    "From a new connection's first packet, as it is read, to the verdict on it.",
			Buckets: prometheus.ExponentialBuckets(1e-6, 4, 11), // to 1 s
		}, []string{"lane"}),
	}
	m.admitted = m.verdicts.WithLabelValues("admitted")
	m.strangers = m.verdicts.WithLabelValues("strangers")
	return m
}

// The metrics that are read from the status, beside those that count events.
var (
	byDoor = []string{"door"}

	leftMetric      = describe("one_time_sequences_left", "Sequences of the list that were not used yet.", byDoor)
	openMetric      = describe("windows_open", "Windows that are open now.", byDoor)
	verdictsMetric  = eventMetrics[audit.VerdictsMetric]
	heldMetric      = describe("held_total", "Strangers' packets that had to wait whether their knock comes.", byDoor)
	kernelMetric    = describe("kernel_packets_total", "Packets that the kernel's own rules have counted, rate limits included.", []string{"door", "verdict"})
	waitingMetric   = describe("waiting", "Strangers' packets that wait now.", nil)
	attemptsMetric  = describe("attempts", "Attempts that are remembered now.", nil)
	evictedMetric   = describe("evicted_total", "Attempts that gave way to newer ones.", nil)
	lostMetric      = describe("lost_total", "Packets that were logged or queued and could not be read in time.", nil)
	findingsMetric  = describe("findings", "How many things there are that make a door something else than it seems, or weaken it.", []string{"check", "door", "severity"})
	bareMetric      = describe("door_bare", "1 for a door that stands before nothing on this host, else 0.", byDoor)
	differMetric    = describe("rule_files_differ", "1 if the rule files are others than those in force.", nil)
	trackedMetric   = describe("conntrack_entries", "Connections that conntrack knows, as of seconds ago.", nil)
	limitMetric     = describe("conntrack_limit", "Connections that conntrack has room for, and drops what is new without; 0 if unknown.", nil)
	startedMetric   = describe("start_time_seconds", "When the daemon put up the wall, in seconds since 1970.", nil)
	collectedByDoor = []*prometheus.Desc{leftMetric, openMetric, heldMetric, kernelMetric, bareMetric}
	collected       = []*prometheus.Desc{waitingMetric, attemptsMetric, evictedMetric, lostMetric, trackedMetric, limitMetric, differMetric, startedMetric, findingsMetric}
)

func describe(name, help string, labels []string) *prometheus.Desc {
	return prometheus.NewDesc("knockwall_"+name, help, labels, nil)
}

// eventMetrics describes the metrics that count events, by the names that the table of
// events gives them.
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

// Describe makes the wall a [prometheus.Collector].
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

// Collect makes the wall a [prometheus.Collector].
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
