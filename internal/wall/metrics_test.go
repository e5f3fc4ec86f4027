package wall_test

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/wall"
)

// gather returns the values of all metrics; of histograms, the number of observations.
func (h *host) gather() map[string]float64 {
	h.t.Helper()
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(h.wall); err != nil {
		h.t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil {
		h.t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		if f.GetHelp() == "" || !strings.HasPrefix(f.GetName(), "knockwall_") {
			h.t.Errorf("metric %s: %q", f.GetName(), f.GetHelp())
		}
		for _, m := range f.GetMetric() {
			name := strings.TrimPrefix(f.GetName(), "knockwall_")
			for _, l := range m.GetLabel() {
				if name == "build_info" {
					break // its values depend on the build
				}
				name += " " + l.GetValue()
			}
			switch {
			case m.GetCounter() != nil:
				values[name] = m.GetCounter().GetValue()
			case m.GetGauge() != nil:
				values[name] = m.GetGauge().GetValue()
			default:
				values[name] = float64(m.GetHistogram().GetSampleCount())
				values[name+" sum"] = math.Round(m.GetHistogram().GetSampleSum()*1e6) / 1e6
			}
		}
	}
	return values
}

func TestMetricsCountWhatHappens(t *testing.T) {
	c := config(limited(sshDoor(), 2), door("web", 443, 7001))
	c.Wall.MaxSources = 2
	guarded(t, c, func(h *host) {
		began := h.status().Since
		a, b := h.client(alice), h.client(bob)
		before := h.gather()
		always := map[string]bool{"start_time_seconds": true, "last_reload_successful": true, "build_info": true}
		for name, value := range before {
			if value != 0 && !always[name] {
				h.t.Errorf("%s is %v before anything happens", name, value)
			}
		}

		held := a.dial(22)
		synctest.Wait()
		time.Sleep(100 * time.Millisecond)
		a.knock(7000, 8000, 9000)
		h.expect("released", held, accepted)
		a.knock(7001)
		b.knock(7001)
		synctest.Wait()
		b.knock(7001)
		synctest.Wait()
		h.losing = true // so that the packet is sent again
		lane, strangers := h.lanes()
		lane.hold()
		second, third := a.dial(22), a.dial(22)
		lane.resume()
		h.expect("the second", second, accepted)
		h.expect("the third", third, refused)
		time.Sleep(retransmitted)
		h.expect("a second SYN again", h.send(second.packet), accepted)
		theirs := b.dial(22)
		time.Sleep(hold)
		h.expect("refused", theirs, refused)
		if _, err := h.wall.Close("web", "192.0.2.1", false); err != nil {
			h.t.Fatal(err)
		}
		lane.lose(4)
		strangers.lose(5)
		time.Sleep(time.Second)
		h.client(carol).knock(7000, 9000) // a new attempt and a wrong knock
		time.Sleep(time.Second)
		h.client(carol).knock(7000)
		h.client(carol).dial(443)
		h.tell(nft.Change{Tables: []string{"knockwall"}})
		h.client(carol).dial(443)
		synctest.Wait()

		want := map[string]float64{
			"knocks_total ssh": 6, "knocks_total web": 3,
			"resets_total ssh": 1, "resets_total web": 0,
			"trapped_total ssh": 0, "trapped_total web": 0, "replayed_total ssh": 0, "replayed_total web": 0,
			"windows_total ssh opened": 1, "windows_total ssh refreshed": 0, "windows_total ssh expired": 0, "windows_total ssh closed": 1,
			"windows_total web opened": 2, "windows_total web refreshed": 1, "windows_total web expired": 0, "windows_total web closed": 1,
			"windows_open ssh": 0, "windows_open web": 1,
			"verdicts_total ssh admitted accept": 2, "verdicts_total ssh admitted refuse": 1,
			"verdicts_total ssh strangers repeat": 1, "verdicts_total ssh strangers refuse": 1,
			"verdicts_total web admitted accept": 0, "verdicts_total web admitted refuse": 0,
			"verdicts_total web strangers repeat": 0, "verdicts_total web strangers refuse": 0,
			"held_total ssh": 2, "held_total web": 2,
			"kernel_packets_total ssh admitted": 0, "kernel_packets_total ssh refused": 0, // begun anew
			"kernel_packets_total web admitted": 0, "kernel_packets_total web refused": 0,
			"door_bare ssh": 0, "door_bare web": 0,
			"waiting": 2, "attempts": 2, "lost_total": 9, "healed_total": 1,
			"degraded": 0, "on_trial": 0, "build_info": 1,
			"rule_files_differ": 0, "last_reload_successful": 1, "last_reload_success_timestamp_seconds": 0, // there are no files
			"conntrack_entries": 0, "conntrack_limit": 0, // unknown
			"start_time_seconds": float64(began.Unix()),
			"opening_seconds":    4, "opening_seconds sum": 0,
			"verdict_seconds admitted": 3, "verdict_seconds admitted sum": 0,
			"verdict_seconds strangers": 2, "verdict_seconds strangers sum": 0.3, // one for 0.1 s, and one for 0.2 s
		}
		got := h.gather()
		want["evicted_total"] = got["evicted_total"]
		if got["evicted_total"] == 0 {
			h.t.Error("no attempts were evicted")
		}
		if diff := cmp.Diff(want, got); diff != "" {
			h.t.Errorf("metrics (-want +got):\n%s", diff)
		}

		h.reload(config(door("web", 443, 7001), limited(sshDoor(), 2)))
		time.Sleep(2 * window)
		synctest.Wait()
		for name, value := range h.gather() {
			was := want[name]
			switch {
			case strings.HasPrefix(name, "windows_open"), name == "waiting", name == "attempts":
				if value != 0 {
					h.t.Errorf("%s is %v when all is over", name, value)
				}
			case value < was:
				h.t.Errorf("%s has gone down from %v to %v", name, was, value)
			}
		}
		if got := h.gather()["windows_total web expired"]; got != 1 {
			h.t.Errorf("%v windows have expired", got)
		}
	})
}

// The rule files, a trial and an error on the host are in the metrics as in the status.
func TestMetricsOfTheRulesInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		edges := h.edges()
		var files wall.RuleFiles
		edges.Rules = func() wall.RuleFiles { return files }
		h.wall = wall.New(edges, h.trail)
		if err := h.raise(config(sshDoor())); err != nil {
			t.Fatal(err)
		}
		h.run()
		expect := func(want map[string]float64) {
			t.Helper()
			got := h.gather()
			for name, value := range want {
				if has, ok := got[name]; !ok || has != value {
					t.Errorf("%s is %v, want %v", name, has, value)
				}
			}
		}
		files.InForce = time.Unix(1_800_000_000, 5e8)
		expect(map[string]float64{
			"rule_files_differ": 0, "last_reload_successful": 1, "last_reload_success_timestamp_seconds": 1_800_000_000.5,
			"on_trial": 0, "degraded": 0,
		})
		files.Differ, files.Failed = true, true
		files.Findings = []doctor.Finding{{Check: "rules", Severity: doctor.Warning}}
		expect(map[string]float64{
			"rule_files_differ": 1, "last_reload_successful": 0, "last_reload_success_timestamp_seconds": 1_800_000_000.5,
			"findings rules  warning": 1, "degraded": 0,
		})
		files.Findings[0].Severity = doctor.Error
		if err := h.try(config(door("web", 443, 7001)), time.Minute); err != nil {
			t.Fatal(err)
		}
		expect(map[string]float64{"findings rules  error": 1, "degraded": 1, "on_trial": 1})
		if err := h.wall.Confirm(); err != nil {
			t.Fatal(err)
		}
		expect(map[string]float64{"on_trial": 0})
	})
}

func TestMetricsAreRegisteredAndAnErrorBeforeTheWallIsInstalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		r := prometheus.NewPedanticRegistry()
		if err := r.Register(h.wall); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Gather(); err == nil {
			t.Error("a wall that does not stand has metrics")
		}
	})
}

func TestEveryMetricIsDescribedOnce(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		described := make(chan *prometheus.Desc, 100)
		h.wall.Describe(described)
		close(described)
		names := map[string]int{}
		for d := range described {
			name, _, _ := strings.Cut(strings.TrimPrefix(fmt.Sprint(d), `Desc{fqName: "`), `"`)
			names[strings.TrimPrefix(name, "knockwall_")]++
		}
		for name, n := range names {
			if n != 1 {
				h.t.Errorf("%s is described %d times", name, n)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(h.gather())) {
			name, _, _ = strings.Cut(name, " ")
			if names[name] == 0 {
				h.t.Errorf("%s is not described", name)
			}
		}
	})
}

// The metrics count the events as the table of events says, by door or for the host.
func TestEveryEventThatCountsHasItsMetric(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		values := h.gather()
		for _, row := range audit.Table() {
			m := row.Metric
			if m == nil {
				continue
			}
			labels := map[string]string{}
			for i, label := range m.Labels {
				labels[label] = m.Values[i]
			}
			if m.ByDoor {
				labels["door"] = "ssh"
			}
			name := m.Name
			for _, label := range slices.Sorted(maps.Keys(labels)) {
				name += " " + labels[label]
			}
			if value, ok := values[name]; !ok || value != 0 {
				h.t.Errorf("%s is counted by %q: %t, %v", row.Kind, name, ok, value)
			}
		}
	})
}
