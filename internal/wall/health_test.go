package wall_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/wall"
)

// bareDoor is the finding for a door "ssh" that guards nothing.
var bareDoor = doctor.Finding{Check: "interfaces", Severity: doctor.Error, Door: "ssh", Bare: true, Problem: "There is no interface.", Cure: "Make one."}

// patient is a host that is examined, with the reported changes.
type patient struct {
	*teller
	changes []string
}

// examined runs f in a bubble, with a wall whose host examine examines.
func examined(t *testing.T, examine func() []doctor.Finding, f func(h *patient)) {
	synctest.Test(t, func(t *testing.T) {
		h := &patient{teller: &teller{newHost(t), audit.NewHistory()}}
		edges := h.edges()
		edges.Examine = func(*effective.Config) doctor.Report { return doctor.Report{Findings: examine()} }
		edges.Found = func(_ *effective.Config, before, now []doctor.Finding) {
			h.changes = append(h.changes, doctor.BareDoors(before)["ssh"]+" > "+doctor.BareDoors(now)["ssh"])
		}
		h.wall = wall.New(edges, audit.Sinks{h.trail, h.history})
		if err := h.raise(config(sshDoor(), door("web", 443, 7001))); err != nil {
			t.Fatal(err)
		}
		h.run()
		f(h)
	})
}

// All reports agree that a door guards nothing. The door beside it is not affected.
func TestADoorThatGuardsNothingIsReportedEverywhere(t *testing.T) {
	examined(t, func() []doctor.Finding { return []doctor.Finding{bareDoor} }, func(h *patient) {
		s := h.status()
		if len(s.Findings) != 1 || s.Findings[0] != bareDoor {
			t.Errorf("findings: %+v", s.Findings)
		}
		if !s.Doors[0].Bare || s.Doors[1].Bare {
			t.Errorf("bare: ssh %v, web %v", s.Doors[0].Bare, s.Doors[1].Bare)
		}
		if guarded, bare, _ := h.wall.Brief(); guarded != 1 || bare != 1 {
			t.Errorf("brief: %d guarded, %d bare", guarded, bare)
		}
		metrics := h.gather()
		if metrics["findings interfaces ssh error"] != 1 || metrics["door_bare ssh"] != 1 || metrics["door_bare web"] != 0 {
			t.Errorf("metrics: %v", metrics)
		}
		all := h.explain(alice.String())
		if e := all[0]; !e.In || e.Reason != wall.Bare || e.Sentence != alice.String()+" is not refused: the door guards nothing on this host. There is no interface." {
			t.Errorf("ssh: %+v", e)
		}
		if e := all[1]; e.In || e.Reason != wall.NeverKnocked {
			t.Errorf("web: %+v", e)
		}
	})
}

// Whom the wall lets in may get no further on this host, and explain says so. What keeps out
// another version of IP, or stops knocks, does not concern somebody who is in.
func TestExplainSaysWhatStopsSomebodyWhoIsLetIn(t *testing.T) {
	noService := doctor.Finding{Check: "listening", Severity: doctor.Warning, Door: "ssh", Stops: doctor.Connections, Problem: "Nothing listens."}
	dropped := doctor.Finding{Check: "other tables", Severity: doctor.Warning, Door: "ssh", Stops: doctor.Connections, IPVersion: 4, Problem: "A table drops it."}
	other := doctor.Finding{Check: "other tables", Severity: doctor.Warning, Door: "ssh", Stops: doctor.Connections, IPVersion: 6, Problem: "IPv6 only."}
	deaf := doctor.Finding{Check: "other tables", Severity: doctor.Error, Door: "ssh", Stops: doctor.Knocks, Problem: "A table drops knocks."}
	hangs := false
	examined(t, func() []doctor.Finding {
		if hangs {
			time.Sleep(time.Minute)
		}
		return []doctor.Finding{noService, dropped, other, deaf}
	}, func(h *patient) {
		if e := h.explain(alice.String())[0]; !strings.HasSuffix(e.Sentence, "ago). `knockwall doctor` finds: A table drops knocks.") {
			t.Errorf("before a knock: %+v", e)
		}
		h.client(alice).knock(7000, 8000, 9000)
		h.because(alice, wall.WindowOpen, unknown, "its window is open for another 30s. But `knockwall doctor` finds: Nothing listens. A table drops it")
		if e := h.explain(alice.String())[1]; strings.Contains(e.Sentence, "doctor") {
			t.Errorf("at another door: %+v", e)
		}
		hangs = true
		last := time.Now()
		time.Sleep(10 * time.Second)
		h.because(alice, wall.WindowOpen, unknown, "its window is open for another 19s. But `knockwall doctor` has found, as the host was last examined at "+
			at(last, "11s")+": Nothing listens. A table drops it")
		time.Sleep(time.Minute) // until the examination has ended
	})
}

// An interface may be renamed at any moment. Reports show the present state.
func TestTheHostIsExaminedAgainForARequest(t *testing.T) {
	var found []doctor.Finding
	examined(t, func() []doctor.Finding { return found }, func(h *patient) {
		time.Sleep(3 * time.Second)
		if s := h.status(); len(s.Findings) != 0 {
			t.Errorf("at first: %+v", s.Findings)
		}
		found = []doctor.Finding{bareDoor}
		time.Sleep(3 * time.Second)
		if s := h.status(); len(s.Findings) != 1 {
			t.Errorf("later: %+v", s.Findings)
		}
		synctest.Wait()
		if diff := cmp.Diff([]string{" > There is no interface."}, h.changes); diff != "" {
			t.Errorf("what has changed is told (-want +got):\n%s", diff)
		}
		found = nil
		time.Sleep(3 * time.Second)
		if e := h.explain(alice.String()); e[0].In {
			t.Errorf("mended: %+v", e)
		}
	})
}

// Requests wait a moment for an examination that hangs. Knocks do not wait.
func TestAnExaminationThatHangsDelaysNoRequestForLong(t *testing.T) {
	const answersIn = time.Minute
	examined(t, func() []doctor.Finding { time.Sleep(answersIn); return []doctor.Finding{bareDoor} }, func(h *patient) {
		asked := time.Now()
		if s := h.status(); len(s.Findings) != 0 || time.Since(asked) > 2*time.Second {
			t.Errorf("after %s: %+v", time.Since(asked), s.Findings)
		}
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		h.expect("knocked", a.dial(22), accepted)
		time.Sleep(answersIn)
		if s := h.status(); len(s.Findings) != 1 {
			t.Errorf("when it has answered: %+v", s.Findings)
		}
	})
}

// A door with interfaces keeps nothing out at others.
func TestItIsSaidAtWhichInterfacesSomebodyIsKeptOut(t *testing.T) {
	c := config(sshDoor())
	c.Doors[0].Interfaces = []string{"eth0", "ppp*"}
	telling(t, c, func(h *teller) {
		if e := h.explain(alice.String())[0]; !strings.HasPrefix(e.Sentence, alice.String()+" is not let in by eth0 or ppp*: no knock from it was received; ") {
			t.Errorf("%+v", e)
		}
	})
}
