package clients

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/ruleset"
)

// The example of a gateway with a door for each of 1,000 hosts, as its script makes it.
func TestAGatewayWithADoorForEachOfManyHosts(t *testing.T) {
	t.Parallel()
	lab.NeedsRoot(t, "so that one transaction may be as large as the table")
	lab.NeedsProgram(t, "shuf")
	const hosts = 1000
	l := lab.New(t)
	l.ServeTCP(22)
	l.AddInside(22)
	var list strings.Builder
	for n := range hosts - 1 {
		fmt.Fprintf(&list, "host%d 10.64.%d.%d\n", n, n/250, n%250+1)
	}
	fmt.Fprintf(&list, "inside %s %s\n", lab.Inside, lab.Inside6)
	script, err := filepath.Abs("../../examples/many-hosts/doors.sh")
	lab.Must(t, err)
	folder := t.TempDir()
	made := exec.Command("sh", script, folder)
	made.Stdin = strings.NewReader(list.String())
	if out, err := made.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	rules := filepath.Join(l.Folder, "doors.hcl")
	lab.Must(t, os.Rename(filepath.Join(folder, "doors-0.hcl"), rules))
	loaded := ruleset.Load(rules)
	if loaded.Config == nil || len(loaded.Config.Doors) != hosts || len(loaded.Diagnostics) > 0 {
		t.Fatalf("the rule file has not %d doors: %v", hosts, loaded.Diagnostics)
	}
	client, err := os.ReadFile(filepath.Join(folder, "clients", "inside.hcl"))
	lab.Must(t, err)
	knocks := sequenceOf(loaded.Config.Door("inside"))
	for _, want := range []string{fmt.Sprintf("address = %q", lab.Inside), fmt.Sprintf("[%d, \"%d/udp\", %d]", knocks[0].Number, knocks[1].Number, knocks[2].Number)} {
		if !strings.Contains(string(client), want) {
			t.Errorf("%s is not what a client is told:\n%s", want, client)
		}
	}

	d := l.RunFile(rules)
	other := loaded.Config.Door("host7")
	for self, to := range map[netip.Addr]netip.Addr{lab.Client4: lab.Inside, lab.Client6: lab.Inside6} {
		if l.AdmitsAtOnce(self, to, 22) {
			t.Errorf("%s is let in before it knocks", self)
		}
		l.Knock(self, to, sequenceOf(other)...) // the knocks of another host
		if l.AdmitsAtOnce(self, to, 22) {
			t.Errorf("%s is let in after the knocks of another door", self)
		}
		l.Knock(self, to, knocks...)
		d.WaitFor("opened", "door=inside source="+self.String())
		if !l.Admits(self, to, 22) {
			t.Errorf("%s is not let in after its knocks", self)
		}
	}
	if !l.Admits(lab.Client4, lab.Server4, 22) {
		t.Error("the gateway's own ssh is shut, too")
	}
}
