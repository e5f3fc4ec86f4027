package wall

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
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

// The metrics that are read from the status.
var (
	byDoor = []string{"door"}

	knocksMetric    = describe("knocks_total", "Knocks that were heard and counted for something.", byDoor)
	resetsMetric    = describe("resets_total", "Attempts that were over before they were complete.", byDoor)
	trappedMetric   = describe("trapped_total", "Packets to traps, as far as they were logged.", byDoor)
	replayedMetric  = describe("replayed_total", "Times that what opens a door once came once more.", byDoor)
	leftMetric      = describe("one_time_sequences_left", "Sequences of the list that were not used yet.", byDoor)
	windowsMetric   = describe("windows_total", "What became of windows: opened, refreshed, expired, closed.", []string{"door", "event"})
	openMetric      = describe("windows_open", "Windows that are open now.", byDoor)
	verdictsMetric  = describe("verdicts_total", "Verdicts on new connections' first packets, retransmissions left out.", []string{"lane", "door", "verdict"})
	heldMetric      = describe("held_total", "Strangers' packets that had to wait whether their knock comes.", byDoor)
	kernelMetric    = describe("kernel_packets_total", "Packets that the kernel's own rules have counted, rate limits included.", []string{"door", "verdict"})
	waitingMetric   = describe("waiting", "Strangers' packets that wait now.", nil)
	attemptsMetric  = describe("attempts", "Attempts that are remembered now.", nil)
	evictedMetric   = describe("evicted_total", "Attempts that gave way to newer ones.", nil)
	lostMetric      = describe("lost_total", "Packets that were logged or queued and could not be read in time.", nil)
	healedMetric    = describe("healed_total", "Times that somebody else's change to the wall was undone.", nil)
	findingsMetric  = describe("findings", "How many things there are that make a door something else than it seems, or weaken it.", []string{"check", "door", "severity"})
	bareMetric      = describe("door_bare", "1 for a door that stands before nothing on this host, else 0.", byDoor)
	differMetric    = describe("rule_files_differ", "1 if the rule files are others than those in force.", nil)
	trackedMetric   = describe("conntrack_entries", "Connections that conntrack knows, as of seconds ago.", nil)
	limitMetric     = describe("conntrack_limit", "Connections that conntrack has room for, and drops what is new without; 0 if unknown.", nil)
	startedMetric   = describe("start_time_seconds", "When the daemon put up the wall, in seconds since 1970.", nil)
	collectedByDoor = []*prometheus.Desc{knocksMetric, resetsMetric, trappedMetric, replayedMetric, leftMetric, windowsMetric, openMetric, verdictsMetric, heldMetric, kernelMetric, bareMetric}
	collected       = []*prometheus.Desc{waitingMetric, attemptsMetric, evictedMetric, lostMetric, healedMetric, trackedMetric, limitMetric, differMetric, startedMetric, findingsMetric}
)

func describe(name, help string, labels []string) *prometheus.Desc {
	return prometheus.NewDesc("knockwall_"+name, help, labels, nil)
}

// Describe makes the wall a [prometheus.Collector].
func (w *Wall) Describe(to chan<- *prometheus.Desc) {
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
	s, err := w.Status()
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
	for _, d := range s.Doors {
		c := d.Counters
		bare := 0.0
		if d.Bare {
			bare = 1
		}
		now(bareMetric, bare, d.Name)
		total(knocksMetric, c.Knocks, d.Name)
		total(resetsMetric, c.Resets, d.Name)
		total(trappedMetric, c.Trapped, d.Name)
		total(replayedMetric, c.Replayed, d.Name)
		if d.SequencesLeft != nil {
			now(leftMetric, float64(*d.SequencesLeft), d.Name)
		}
		total(windowsMetric, c.Opened, d.Name, "opened")
		total(windowsMetric, c.Refreshed, d.Name, "refreshed")
		total(windowsMetric, c.Expired, d.Name, "expired")
		total(windowsMetric, c.Closed, d.Name, "closed")
		now(openMetric, float64(open[d.Name]), d.Name)
		total(verdictsMetric, c.Accepted, "admitted", d.Name, "accept")
		total(verdictsMetric, c.Exhausted, "admitted", d.Name, "refuse")
		total(verdictsMetric, c.Released, "strangers", d.Name, "repeat")
		total(verdictsMetric, c.Refused, "strangers", d.Name, "refuse")
		total(heldMetric, c.Held, d.Name)
		total(kernelMetric, c.KernelAdmitted, d.Name, "admitted")
		total(kernelMetric, c.KernelRefused, d.Name, "refused")
	}
	now(waitingMetric, float64(s.Counters.Waiting))
	now(attemptsMetric, float64(s.Counters.Attempts))
	total(evictedMetric, s.Counters.Evicted)
	total(lostMetric, s.Counters.Lost)
	total(healedMetric, s.Counters.Healed)
	differ := 0.0
	if s.FilesDiffer {
		differ = 1
	}
	now(differMetric, differ)
	now(trackedMetric, float64(s.Counters.Tracked))
	now(limitMetric, float64(s.Counters.TrackedLimit))
	now(startedMetric, float64(s.Since.UnixNano())/float64(time.Second))
}
