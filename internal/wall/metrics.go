package wall

import (
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/build"
	"github.com/knockwall/knockwall/internal/doctor"
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
	if (e.Kind == audit.Opened || e.Kind == audit.Refreshed) && e.Code != audit.CodeManual && e.Code != audit.CodeShared {
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
	degradedMetric  = describe("degraded", "1 if a door does not do what it should, or the rule files could not be used at start, else 0.", nil)
	trialMetric     = describe("on_trial", "1 if the rules in force are on trial, else 0.", nil)
	reloadMetric    = describe("last_reload_successful", "1 if the last start or reload put the rule files in force, else 0.", nil)
	reloadedMetric  = describe("last_reload_success_timestamp_seconds", "When the rule files were last put in force, in seconds since 1970; 0: not by this daemon.", nil)
	differMetric    = describe("rule_files_differ", "1 if the rule files differ from the rules in force, else 0.", nil)
	trackedMetric   = describe("conntrack_entries", "Connections in conntrack's table, read some seconds ago.", nil)
	limitMetric     = describe("conntrack_limit", "Maximum of connections in conntrack's table, above which the kernel drops new ones; 0 if unknown.", nil)
	companionMetric = describe("share_companion", "1 if a companion that shares windows has told of its group within ten seconds, else 0; missing without a share block.", nil)
	connectedMetric = describe("share_connected", "1 if the companion is connected with a NATS server, else 0; missing if unknown.", nil)
	membersMetric   = describe("share_members", "Other hosts that the companion has heard in the last minute; missing if unknown.", nil)
	lagMetric       = describe("share_lag_seconds", "The longest time that a message of another host takes: half of the last round trip; missing if unknown.", nil)
	messagesMetric  = describe("share_messages_total", "Messages of the companion since it was started; missing if unknown.", []string{"direction"})
	missedMetric    = describe("share_lost_total", "Messages of other hosts that the companion has missed since it was started, and asked for; missing if unknown.", nil)
	startedMetric   = describe("start_time_seconds", "When the daemon installed the wall, in seconds since 1970.", nil)
	collectedByDoor = []*prometheus.Desc{leftMetric, openMetric, heldMetric, kernelMetric, bareMetric}
	collected       = []*prometheus.Desc{
		waitingMetric, attemptsMetric, evictedMetric, lostMetric, trackedMetric, limitMetric, degradedMetric, trialMetric,
		reloadMetric, reloadedMetric, differMetric, startedMetric, findingsMetric, buildMetric,
		companionMetric, connectedMetric, membersMetric, lagMetric, messagesMetric, missedMetric,
	}
)

// buildMetric is always 1. Its labels describe the build.
var buildMetric = prometheus.NewDesc("knockwall_build_info", "1; the labels are the version of knockwall and of the Go that built it.", nil,
	prometheus.Labels{"version": build.Version(), "goversion": runtime.Version()})

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
	c := collection{to}
	c.events(&events.host, false)
	for i := range s.Doors {
		d := &s.Doors[i]
		c.events(&events.doors[i], true, d.Name)
		c.door(d)
	}
	c.findings(s.Findings)
	c.sharing(s.Sharing)
	c.now(waitingMetric, float64(s.Counters.Waiting))
	c.now(attemptsMetric, float64(s.Counters.Attempts))
	c.total(evictedMetric, s.Counters.Evicted)
	c.total(lostMetric, s.Counters.Lost)
	c.now(degradedMetric, oneIf(slices.ContainsFunc(s.Findings, func(f doctor.Finding) bool { return f.Severity == doctor.Error })))
	c.now(trialMetric, oneIf(s.Trial != nil))
	c.now(reloadMetric, oneIf(!events.files.Failed))
	c.now(reloadedMetric, since1970(events.files.InForce))
	c.now(differMetric, oneIf(s.FilesDiffer))
	c.now(trackedMetric, float64(s.Counters.Tracked))
	c.now(limitMetric, float64(s.Counters.TrackedLimit))
	c.now(startedMetric, since1970(s.Since))
	c.now(buildMetric, 1)
}

// collection sends metrics.
type collection struct{ to chan<- prometheus.Metric }

func (c collection) total(d *prometheus.Desc, n uint64, labels ...string) {
	c.to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func (c collection) now(d *prometheus.Desc, n float64, labels ...string) {
	c.to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n, labels...)
}

// events sends the numbers of events that are counted by door, or of those that are not.
func (c collection) events(counts *audit.Counts, byDoor bool, door ...string) {
	for _, row := range audit.Table() {
		if m := row.Metric; m != nil && m.ByDoor == byDoor {
			c.total(eventMetrics[m.Name], counts.Of(row.Kind), slices.Concat(door, m.Values)...)
		}
	}
}

// door sends what is not an event of a door.
func (c collection) door(d *DoorStatus) {
	n := &d.Counters
	c.now(bareMetric, oneIf(d.Bare), d.Name)
	if d.SequencesLeft != nil {
		c.now(leftMetric, float64(*d.SequencesLeft), d.Name)
	}
	c.now(openMetric, float64(d.OpenWindows), d.Name)
	c.total(verdictsMetric, n.Exhausted, d.Name, "admitted", "refuse")
	c.total(verdictsMetric, n.Released, d.Name, "strangers", "repeat")
	c.total(heldMetric, n.Held, d.Name)
	c.total(kernelMetric, n.KernelAdmitted, d.Name, "admitted")
	c.total(kernelMetric, n.KernelRefused, d.Name, "refused")
}

// sharing sends what is known of other hosts.
func (c collection) sharing(s *Sharing) {
	if s == nil {
		return
	}
	c.now(companionMetric, oneIf(s.Companion != nil))
	if s.Companion == nil {
		return
	}
	c.now(connectedMetric, oneIf(s.Companion.Connected))
	c.now(membersMetric, float64(s.Companion.Count))
	c.total(messagesMetric, s.Companion.Sent, "sent")
	c.total(messagesMetric, s.Companion.Received, "received")
	c.total(missedMetric, s.Companion.Lost)
	longest := -1.0
	for _, m := range s.Companion.Members {
		if m.LagSeconds != nil {
			longest = max(longest, *m.LagSeconds)
		}
	}
	if longest >= 0 {
		c.now(lagMetric, longest)
	}
}

func (c collection) findings(all []doctor.Finding) {
	found := map[[3]string]int{}
	for _, f := range all {
		found[[3]string{f.Check, f.Door, string(f.Severity)}]++
	}
	for labels, n := range found {
		c.now(findingsMetric, float64(n), labels[:]...)
	}
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// since1970 returns a time in seconds, 0 for the zero time.
func since1970(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / float64(time.Second)
}
