package doctor

import "testing"

// Where other users' processes are hidden, as they are from the daemon, services are told
// apart by their cgroups.
func TestServicesAreToldApartByCgroup(t *testing.T) {
	p := &programs{units: map[uint64]string{7: "ssh.service"}}
	if got := p.shared(socket{inode: 1, cgroup: 7}, socket{inode: 2, cgroup: 7}, false); got != "ssh.service" {
		t.Errorf("one service has both, and it is said to be %q", got)
	}
	for _, other := range []uint64{0, 8} {
		if got := p.shared(socket{inode: 1, cgroup: 7}, socket{inode: 2, cgroup: other}, false); got != "" {
			t.Errorf("%q is said to have both", got)
		}
	}
	if got := p.shared(socket{inode: 1, cgroup: 8}, socket{inode: 2, cgroup: 8}, false); got != "" {
		t.Errorf("what is no service is said to be %q", got)
	}
}
