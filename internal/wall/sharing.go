package wall

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/build"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/ruleset"
)

// Sharing is what the daemon knows of the hosts that share windows with this one. It has no
// network, so it knows only what a companion tells.
type Sharing struct {
	Group string `json:"group"` // in the rules in force
	// MaxWindows is how many windows the shared doors can have open, all together.
	MaxWindows int64 `json:"max_windows"`
	// Companion is what a companion has told, AgeSeconds ago. It is nil if nothing is known,
	// as no companion has told anything for ten seconds.
	Companion  *Companion `json:"companion,omitempty"`
	AgeSeconds float64    `json:"age_seconds,omitempty"`
}

// Companion is what a companion tells of itself and of the other members.
type Companion struct {
	Group     string   `json:"group"`
	Name      string   `json:"name"` // of this host in the group
	Version   string   `json:"version,omitempty"`
	Connected bool     `json:"connected"` // with a NATS server
	Namesake  bool     `json:"namesake,omitempty"`
	Count     int      `json:"count"`   // of the other members that were heard in the last minute
	Members   []Member `json:"members"` // the first of them by name, MaxMembers at most
	// Messages since the companion was started, and those of others that it has missed.
	Sent     uint64 `json:"sent"`
	Received uint64 `json:"received"`
	Lost     uint64 `json:"lost"`
}

// Member is another host of the group.
type Member struct {
	Name         string  `json:"name"`
	Version      string  `json:"version,omitempty"` // empty: unknown
	HeardSeconds float64 `json:"heard_seconds"`     // how long ago it was last heard
	// LagSeconds is how long a message from there takes: half of the last round trip. nil:
	// unknown.
	LagSeconds *float64 `json:"lag_seconds,omitempty"`
	// ClockAheadSeconds is how far its clock is ahead of this host's, by less than the lag
	// wrong; negative if it is behind. nil: unknown.
	ClockAheadSeconds *float64 `json:"clock_ahead_seconds,omitempty"`
	Lost              uint64   `json:"lost"` // messages of it that this host has missed
}

// MaxMembers is how many members a companion may list.
const MaxMembers = 1024

// sharingLifetime is how long what a companion has told is true, in case it has gone.
const sharingLifetime = 10 * time.Second

// ErrBadSharing means that what a companion tells of its group cannot be true.
var ErrBadSharing = errors.New("invalid sharing")

// sharing keeps what the companion has told last.
type sharing struct {
	mu   sync.Mutex
	told *Companion
	at   time.Time
}

// TellSharing takes what a companion knows of its group.
func (w *Wall) TellSharing(c Companion) error {
	if err := c.check(); err != nil {
		return err
	}
	w.sharing.mu.Lock()
	defer w.sharing.mu.Unlock()
	w.sharing.told, w.sharing.at = &c, time.Now()
	return nil
}

func (c *Companion) check() error {
	wrong := func(format string, a ...any) error { return &request{ErrBadSharing, fmt.Sprintf(format, a...)} }
	isVersion := func(v string) bool {
		return len(v) <= 128 && strings.IndexFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) < 0
	}
	if !originName.MatchString(c.Group) || !originName.MatchString(c.Name) || !isVersion(c.Version) {
		return wrong("group and name are up to 63 letters, digits, dots, hyphens and underscores, and version is a printable text")
	}
	if len(c.Members) > MaxMembers || c.Count < len(c.Members) {
		return wrong("at most %d members are listed, and count is not less than that", MaxMembers)
	}
	for i := range c.Members {
		m := &c.Members[i]
		if !originName.MatchString(m.Name) || !isVersion(m.Version) {
			return wrong("the name of a member is up to 63 letters, digits, dots, hyphens and underscores, and its version is a printable text")
		}
		const year = 366 * 24 * 3600 // a clock may be anywhere
		for _, s := range []*float64{&m.HeardSeconds, m.LagSeconds} {
			if s != nil && (*s < 0 || *s > year) {
				return wrong("heard_seconds and lag_seconds are not negative, and less than a year")
			}
		}
		if s := m.ClockAheadSeconds; s != nil && math.Abs(*s) > 1000*year {
			return wrong("clock_ahead_seconds is less than a thousand years")
		}
	}
	return nil
}

// status returns what is known of the group of the share block in force, or nil without one.
func (s *sharing) status(block *ruleset.Share, now time.Time) *Sharing {
	if block == nil {
		return nil
	}
	known := &Sharing{Group: block.Group}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told != nil && now.Sub(s.at) < sharingLifetime {
		known.Companion, known.AgeSeconds = s.told, seconds(now.Sub(s.at))
	}
	return known
}

// SharingCheck is the check of the findings about other hosts. No door depends on them, so
// all are warnings.
const SharingCheck = "sharing"

// maxClockDifference is from which difference between two clocks on it is a finding. Hosts
// order by their clocks what happens at the same time at two of them.
const maxClockDifference = 5 * time.Second

// findings returns what keeps this host from sharing its windows.
func (s *Sharing) findings(block *ruleset.Share) (all []doctor.Finding) {
	find := func(problem, cure string) {
		all = append(all, doctor.Finding{Check: SharingCheck, Severity: doctor.Warning, Problem: problem, Cure: cure})
	}
	c := s.Companion
	const look = "Look at `journalctl -u knockwall-share`, or at what `knockwall share` says."
	switch {
	case c == nil:
		find(fmt.Sprintf("No companion is connected, so this host shares no window with the group %s.", s.Group),
			"Start it: `sudo systemctl enable --now knockwall-share`, or `knockwall share` without systemd.")
		return all
	case c.Group != block.Group, block.Name != "" && c.Name != block.Name:
		find(fmt.Sprintf("The companion is %s in the group %s, as the share block was when it started. It is another one now.", c.Name, c.Group),
			"Restart it: `sudo systemctl restart knockwall-share`.")
	}
	switch {
	case !c.Connected:
		find("The companion is connected with no NATS server, so no window is shared.", look)
	case c.Count == 0:
		find(fmt.Sprintf("The companion is connected, and hears no other host of the group %s.", c.Group),
			"Start the companions of the others. Check that all have the same group, and that the NATS servers let each publish knockwall.GROUP.NAME.> and subscribe to knockwall.GROUP.>.")
	}
	if c.Namesake {
		find(fmt.Sprintf("Another companion calls itself %s in the group, too, so neither hears the other.", c.Name),
			"Give each host its own name in its share block, and run one companion on each.")
	}
	var clocks, versions []string
	for i := range c.Members {
		m := &c.Members[i]
		if a := m.ClockAheadSeconds; a != nil && math.Abs(*a) > maxClockDifference.Seconds() {
			clocks = append(clocks, m.Name)
		}
		if m.Version != "" && c.Version != "" && m.Version != c.Version {
			versions = append(versions, m.Name)
		}
	}
	if len(clocks) > 0 {
		find(fmt.Sprintf("The clock of this host and the clock of %s differ by more than %s. What happens at the same time at two hosts is ordered by their clocks, and a used knock may not count.", some(clocks), maxClockDifference),
			"Run an NTP client on all hosts.")
	}
	if len(versions) > 0 {
		find(fmt.Sprintf("%s and this host have different versions of knockwall.", some(versions)), "Upgrade all hosts of the group to the same version.")
	}
	if own := build.Version(); c.Version != "" && c.Version != own {
		find("The companion and the daemon have different versions of knockwall.", "Restart what is older: `sudo systemctl restart knockwall-share knockwall`.")
	}
	return all
}

// some names the first of several hosts.
func some(names []string) string {
	const most = 3
	if len(names) > most {
		return fmt.Sprintf("%s and %d others", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
