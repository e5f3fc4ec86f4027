package wall

import (
	"io"
	"iter"
	"time"

	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/progress"
	"github.com/knockwall/knockwall/internal/sessions"
	"github.com/knockwall/knockwall/nflog"
	"github.com/knockwall/knockwall/nfqueue"
)

// Kernel is the part of nftables that the wall uses. [nft.Kernel] implements it.
type Kernel interface {
	Install(t *nft.Table, windows iter.Seq[nft.Window], replaced string) error
	Restore(t *nft.Table, windows iter.Seq[nft.Window]) error
	Remove(table string) (bool, error)
	Intact(t *nft.Table) (bool, error)
	Standing(table string) (*nft.Standing, error)
	Others(table string) ([]*nft.Standing, error)
	Windows(s *nft.Standing, begin func(), take func(nft.Window)) (all bool, err error)
	Generation() (uint32, error)
	IsUnchangedSince(generation uint32, table string) bool
	OpenWindows(table string, windows []nft.Window) error
	CloseWindow(table, door string, source packet.Source) (bool, error)
	Describe(table string, host effective.Host) error
	Trapped(c *effective.Config, door int, source packet.Source) (time.Duration, error)
	Counts(table string) (map[string]nft.Counts, error)
}

// Log is an open NFLOG group. [nflog.Log] implements it.
type Log interface {
	Drained() bool
	Progress() progress.Progress
	Close() error
}

// Queue is an open NFQUEUE. [nfqueue.Queue] implements it.
type Queue interface {
	Accept(id uint32) error
	Repeat(id uint32) error
	RepeatUpTo(id uint32) error
	Refuse(id uint32) error
	RefuseUpTo(id uint32) error
	ReadNow()
	Stats() (nfqueue.Stats, error)
	Progress() progress.Progress
	Close() error
}

// Edges are the functions and stores through which the wall reaches the kernel, the host
// and the disk.
type Edges struct {
	Kernel      Kernel
	ListenLog   func(group uint16, h nflog.Handler) (Log, error)
	ListenQueue func(c nfqueue.Config, h nfqueue.Handler) (Queue, error)
	// LogInUse and QueueInUse report whether another process has bound the group or the
	// queue.
	LogInUse   func(group uint16) (bool, error)
	QueueInUse func(number uint16) (bool, error)
	// Watch reports changes that other processes make to nftables tables. It is nil where
	// the kernel lets no other process change the wall's table.
	Watch func(changed func(nft.Change), failed func(error)) (io.Closer, error)
	// SeedConntrack adds the connections that existed before the wall to conntrack. With
	// renew it also replaces entries that conntrack holds in another state.
	SeedConntrack func(wanted func(sessions.Session) bool, renew bool) (int, error)
	// Look examines the host. The result lacks what could not be found out.
	Look func() (effective.Host, error)
	// Used holds what opens a door once and has been used. Due holds the on_close
	// commands that have still to run. Both outlast the daemon.
	Used, Due Store
	// Kept is where the windows are kept while no daemon runs; nil: nowhere.
	Kept WindowStore
	// Tracked reports whether conntrack has a confirmed entry for the connection of an
	// admitted packet, which means that the packet was delivered.
	Tracked func(p packet.Packet) (bool, error)
	// Usage returns how many connections conntrack tracks, and its limit, 0 if unknown.
	// It may be nil.
	Usage func() (known, room int, err error)
	// Directions calls each with the TCP connections through this host, and with the
	// directions in which conntrack has seen packets. It may be nil.
	Directions func(each func(sessions.Session, sessions.Seen)) error
	// EndSessions ends established connections. EndedSessions returns those that were
	// ended and are still in conntrack, in the direction that either end would have
	// opened them. ClearMarks lets some of them continue.
	EndSessions   func(wanted func(sessions.Session) bool) (int, error)
	EndedSessions func() ([]sessions.Session, error)
	ClearMarks    func(wanted func(sessions.Session) bool) error
	// Examine checks the host for conditions that make a door ineffective or weaker. It
	// may be nil.
	Examine func(c *effective.Config) doctor.Report
	// Found is called when the findings differ from those of the examination before. It
	// may be nil.
	Found func(c *effective.Config, before, now []doctor.Finding)
	// Rules examines the rule files. It is nil where there are none.
	Rules func() RuleFiles
}

// RulesCheck is the check of the findings about the rule files. An error says that they could
// not be used.
const RulesCheck = "rules"

// RuleFiles is the state of the rule files.
type RuleFiles struct {
	Differ  bool      // they differ from the rules in force
	Failed  bool      // the last start or reload could not put them in force
	InForce time.Time // when they were last put in force; zero: not by this daemon
	// Unconfirmed is a trial of the rule files that has ended without a confirmation, after
	// which the former rules are in force; nil if there is none.
	Unconfirmed *UnconfirmedFiles
	Findings    []doctor.Finding
}

// UnconfirmedFiles is a trial of rule files that nobody has confirmed.
type UnconfirmedFiles struct {
	Since time.Time `json:"since"` // when the trial began
	Boot  bool      `json:"boot"`  // the next boot puts the files in force
}

// KernelEdges returns the edges of the real kernel. Its two stores are in memory and last
// as long as the process; a daemon replaces them with files.
func KernelEdges(k *nft.Kernel) Edges {
	e := Edges{
		Used:          NewMemoryStore(),
		Due:           NewMemoryStore(),
		Look:          host.Look,
		Kernel:        k,
		ListenLog:     func(group uint16, h nflog.Handler) (Log, error) { return nflog.Listen(group, h) },
		ListenQueue:   func(c nfqueue.Config, h nfqueue.Handler) (Queue, error) { return nfqueue.Listen(c, h) },
		LogInUse:      nflog.InUse,
		QueueInUse:    nfqueue.InUse,
		SeedConntrack: sessions.SeedConntrack,
		Tracked:       sessions.Tracked,
		Usage:         sessions.Usage,
		Directions:    sessions.Directions,
		EndSessions:   sessions.End, EndedSessions: sessions.Ended, ClearMarks: sessions.ClearMarks,
	}
	if !k.Features().Ownership {
		e.Watch = func(changed func(nft.Change), failed func(error)) (io.Closer, error) {
			return k.Watch(changed, failed)
		}
	}
	return e
}
