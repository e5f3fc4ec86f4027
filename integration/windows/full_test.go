package windows

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/wall"
)

// Whoever knows the knocks and has all addresses of some networks does not get all windows of
// a door: clients of other networks get in. A door that refuses clients says so.
func TestAFullDoorHasRoomForNewcomers(t *testing.T) {
	room := min(*many, networks<<16)
	l := lab.New(t)
	l.ServeTCP(22)
	d := l.Run(rules(room))
	// Each network tries to get its part of all.
	refused := fill(d, 0, room, crowdSource)
	had := open(d)
	t.Logf("%d networks have %d windows of %d", networks, had, room)
	if left := room - had; refused == 0 || left < room/(3*networks+1)-networks {
		t.Errorf("%d windows are left of %d, and %d were refused", left, room, refused)
	}

	late := crowdSource(room - networks).Addr() // of the client's network
	l.Knock(late, lab.Server4, lab.Knocks...)
	d.WaitFor("knock", "source="+late.String()+" ", "step=3/3")
	told(d, doctor.Warning, fmt.Sprintf("%d open windows for IPv4, of %d", had, room), late, "clients of its network")
	l.Knock(lab.Client4, lab.Server4, lab.Knocks...)
	if !l.Admits(lab.Client4, lab.Server4, 22) {
		t.Error("a client of another network does not get in")
	}

	// So many networks that each gets one are still too many.
	if _, err := control.NewClient(d.Control).Close(context.Background(), "ssh", lab.Client4.String(), false); err != nil {
		t.Fatal(err)
	}
	refused = fill(d, 0, room-had, func(n int) packet.Source {
		return sourceOf(netip.AddrFrom4([4]byte{30 + byte(n>>8), byte(n), 0, 1}))
	})
	if n := open(d); n != room || refused != 0 {
		t.Fatalf("%d windows are open, want %d, and %d were refused", n, room, refused)
	}
	l.Knock(lab.Client4, lab.Server4, lab.Knocks...)
	d.WaitForCount(2, "knock", "source="+lab.Client4.String()+" ", "step=3/3")
	told(d, doctor.Error, fmt.Sprintf("%d open windows for IPv4, as many as max_windows allows", room), lab.Client4, "the door has as many open windows as max_windows allows")
	if _, err := control.NewClient(d.Control).Open(context.Background(), "ssh", lab.Client6.String(), ""); err != nil {
		t.Errorf("a client by IPv6: %v", err)
	}
}

// told checks that the status, the metrics and the explanation of a source say what is wrong.
func told(d *lab.Daemon, severity doctor.Severity, problem string, source netip.Addr, why string) {
	t := d.Lab.T
	t.Helper()
	s, err := control.NewClient(d.Control).Status(context.Background(), wall.WindowQuery{Limit: 1})
	lab.Must(t, err)
	found := false
	for _, f := range s.Findings {
		found = found || f.Check == "windows" && f.Door == "ssh" && f.Severity == severity && f.IPVersion == 4 && strings.Contains(f.Problem, problem)
	}
	if !found {
		t.Errorf("the findings are %+v, want one with %q", s.Findings, problem)
	}
	if metric := fmt.Sprintf("\nknockwall_findings{check=\"windows\",door=\"ssh\",severity=%q} 1\n", severity); !strings.Contains(get(d, "/metrics"), metric) {
		t.Errorf("the metrics lack %s", metric)
	}
	if text := get(d, "/v1/explain/"+source.String()); !strings.Contains(text, why) {
		t.Errorf("the explanation of %s lacks %q: %s", source, why, text)
	}
}
