package sandbox_test

import (
	"testing"

	"github.com/knockwall/knockwall/internal/sandbox"
)

func TestForbids(t *testing.T) {
	const (
		ufw  = "ufw needs root, and the service's user cannot become root"
		curl = "curl needs a network, and the service has none"
	)
	for _, test := range []struct {
		want      string
		arguments []string
	}{
		{"", nil},
		{"", []string{"/usr/bin/logger", "open"}},
		{"", []string{"nft", "add", "element", "inet", "fw", "friends", "{", "192.0.2.1", "}"}},
		{"", []string{"logger", "ufw"}},
		{ufw, []string{"/usr/sbin/ufw", "allow", "22"}},
		{ufw, []string{"timeout", "10", "ufw", "reload"}},
		{ufw, []string{"nice", "-n", "5", "timeout", "-k", "1", "10", "env", "-u", "Y", "X=1", "ufw", "reload"}},
		{curl, []string{"xargs", "-n", "1", "curl"}},
		{"sudo needs root, and the service's user cannot become root", []string{"timeout", "10", "sudo", "ufw"}},
		{"", []string{"timeout", "10", "logger", "ufw"}},
		{"", []string{"env", "X=1", "logger", "mail"}},
		{"", []string{"xargs", "-n", "1", "logger", "curl"}},
		{"", []string{"sh", "/usr/local/bin/sync", "curl"}},
		{"", []string{"flock", "/run/curl"}},
		{"", []string{"sh", "-c", "command -v curl"}},
		{"sudo needs root, and the service's user cannot become root", []string{"sudo", "logger", "x"}},
		{"systemctl asks a service that obeys root only", []string{"systemctl", "start", "ssh"}},
		{curl, []string{"/bin/sh", "-c", "logger x; if true; then curl https://example.org; fi"}},
		{curl, []string{"sh", "-c", "nohup sh -c '\"/usr/bin/curl\" x' &"}},
		{"wakeonlan needs a network, and the service has none", []string{"bash", "-ec", "echo $(wakeonlan 00:11:22:33:44:55)"}},
		{"", []string{"sh", "-c", "echo curl"}},
		{"", []string{"sh", "-c", "curl 'not closed"}},
		{"", []string{"sh", "-c"}},
		{"pfctl does not exist on Linux", []string{"pfctl", "-t", "x", "-T", "add", "192.0.2.1"}},
	} {
		if got := sandbox.Forbids(test.arguments); got != test.want {
			t.Errorf("%q: %q, want %q", test.arguments, got, test.want)
		}
	}
}
