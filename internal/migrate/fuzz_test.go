package migrate_test

import (
	"strings"
	"testing"

	"github.com/knockwall/knockwall/internal/migrate"
)

// FuzzImport imports garbage. The result must be a valid rule file, or errors with their
// places.
func FuzzImport(f *testing.F) {
	for _, pattern := range []string{"*.conf", "errors/*.conf"} {
		for _, path := range files(f, pattern) {
			f.Add(read(f, path))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		rules, err := migrate.Import(migrate.File{Name: "a file\n\x1b", Text: text})
		if err == nil {
			mustLoad(t, rules)
			return
		}
		if rules != nil {
			t.Errorf("both an error and a result")
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			if !strings.HasPrefix(line, `a file\n\x1b`) || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' }) {
				t.Errorf("%q", line)
			}
		}
	})
}

// FuzzDoor puts garbage in place of the values of a valid file.
func FuzzDoor(f *testing.F) {
	f.Add("ssh", "eth0", "192.0.2.1", "iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT", "x", "iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT")
	f.Add("a b", "any", "host", `nft add rule inet filter input ip saddr %IP% tcp dport { 22, 80-88 } ct state new counter accept comment "x"`, "", "nft delete rule inet filter input handle $(a)")
	f.Add("22", "lo", "::1", "ufw insert 1 allow in on eth0 from %IP% to any port 22,80:90 proto tcp comment 'x'", "ufw allow from %IP% to any app SSH", "ufw delete 1; logger '%IP%'")
	f.Add("${x}", "e+", "::ffff:192.0.2.1", `firewall-cmd --zone=x --add-rich-rule="rule family="ipv4" source address="%IP%" port port="22" protocol="tcp" accept" --timeout=5m`, "-", "firewall-cmd --reload")
	f.Add("\"", "", "fe80::1%eth0", "ipfw -q add 1 allow tcp from %IP% to any 22 in via em0", "ip6tables -A INPUT -i eth1 -s %IP%/128 -p udp -m multiport --dports 1:,80 -j ACCEPT", "knock_add -x -d 22 -f %IP%")
	f.Add("]", "x", "y", `firewall-cmd --direct --add-rule ipv4 filter INPUT 0 -s %IP% -p tcp --dport ssh -j ACCEPT && echo "$%IP%" '${a}' %%{b}`, "# x", "cd / ; a 'b\\' c")
	oneLine := strings.NewReplacer("\n", "", "\x00", "")
	f.Fuzz(func(t *testing.T, title, device, target, start, start6, stop string) {
		text := "[options]\nInterface = " + oneLine.Replace(device) +
			"\n[" + oneLine.Replace(title) + "]\nSequence = 1,2:udp,3\nTarget = " + oneLine.Replace(target) +
			"\nStart_Command = " + oneLine.Replace(start) + "\nStart_Command_6 = " + oneLine.Replace(start6) +
			"\nStop_Command = " + oneLine.Replace(stop) +
			"\n[closes]\nSequence = 3,2:udp,1\nCommand = iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT\n"
		if rules, err := migrate.Import(migrate.File{Name: "knockd.conf", Text: []byte(text)}); err == nil {
			mustLoad(t, rules)
		}
	})
}
