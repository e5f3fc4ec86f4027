package migrate

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestOnlyWhatIsCertainIsUnderstood lists commands with the ports that they open to the
// source or close. Commands without ports do something else, or are not understood for
// certain.
func TestOnlyWhatIsCertainIsUnderstood(t *testing.T) {
	type known struct {
		kind  kind
		ports string
	}
	for text, want := range map[string]known{
		"iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT":                    {opens, "[22]"},
		"iptables -I INPUT -s %IP% -p 17 --dport :53 -j ACCEPT":                    {opens, `["1-53/udp"]`},
		"iptables -A INPUT --src=%IP% --proto=tcp --dport=ssh,https --jump=ACCEPT": {opens, "[22, 443]"},
		"ip6tables-legacy -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT":            {closes, "[22]"},
		"iptables -D INPUT 7":                                                            {closes, "[]"},
		"iptables -s %IP% -p tcp --dport 22 -j ACCEPT":                                   {},
		"iptables -R INPUT 1 -s %IP% -p tcp --dport 22 -j ACCEPT":                        {},
		"iptables -I INPUT -s %IP% -p icmp -j ACCEPT":                                    {},
		"iptables -I INPUT -s %IP% -p tcp --dport 22 --dport 23 -j ACCEPT":               {},
		"iptables -I INPUT -s %IP% -p tcp --dport 23:22 -j ACCEPT":                       {},
		"iptables -I INPUT -s %IP% -p tcp --dport : -j ACCEPT":                           {},
		"iptables -I INPUT -s %IP% -p tcp --dport 22":                                    {},
		"iptables -I INPUT -s %IP% -p tcp --dport 22 -j":                                 {},
		"iptables -I INPUT -s %IP%,192.0.2.1 -p tcp --dport 22 -j ACCEPT":                {},
		"iptables -I INPUT -i eth+ -s %IP% -p tcp --dport 22 -j ACCEPT":                  {opens, "[22]"},
		"iptables -I INPUT -i eth* -s %IP% -p tcp --dport 22 -j ACCEPT":                  {},
		"iptables -I INPUT -i größe -s %IP% -p tcp --dport 22 -j ACCEPT":                 {opens, "[22]"},
		"iptables -I INPUT -i gro\u0308ße -s %IP% -p tcp --dport 22 -j ACCEPT":           {},
		"iptables -I INPUT -i gr\xf6ße -s %IP% -p tcp --dport 22 -j ACCEPT":              {},
		"iptables -I INPUT -i 'e th' -s %IP% -p tcp --dport 22 -j ACCEPT":                {},
		"iptables -I INPUT -m state --state RELATED -s %IP% -p tcp --dport 22 -j ACCEPT": {},
		"iptables -I DOCKER-USER -s %IP% -p tcp --dport 22 -j ACCEPT":                    {},
		"iptables -F":                   {},
		"knock_add -a -f %IP% -d 22":    {opens, "[22]"},
		"knock_add -f %IP% -d 22":       {},
		"knock_add -a -d 22":            {},
		"knock_add -a -f %IP% -d 22 -t": {},
		"nft add rule filter input ip saddr %IP% udp dport 53 log accept":                                                {},
		"nft add rule filter input ip saddr %IP% udp dport 53 accept drop":                                               {},
		"nft add rule filter input ip saddr %IP% accept":                                                                 {},
		"nft add rule filter input tcp dport 22 accept":                                                                  {},
		"nft add rule filter input ip daddr %IP% tcp dport 22 accept":                                                    {},
		"nft add rule filter input ip saddr %IP% tcp sport 22 accept":                                                    {},
		"nft add rule filter input ip saddr %IP% udp sport 22 accept":                                                    {},
		"nft add rule filter input ip saddr %IP% tcp dport != 22 accept":                                                 {},
		"nft add rule filter input ip saddr %IP% tcp dport {22,23 accept":                                                {},
		"nft add rule filter input ip saddr %IP% tcp dport 22 ct state established accept":                               {},
		"nft add rule filter input ip saddr %IP% tcp dport 22 ct state related, new accept":                              {opens, "[22]"},
		"nft add rule filter input ip saddr %IP% tcp dport 22 udp dport 22 accept":                                       {},
		"nft add rule filter forward ip saddr %IP% tcp dport 22 accept":                                                  {},
		"nft add rule filter input ip saddr %IP% tcp dport 22":                                                           {},
		"nft 'add rule filter input ip saddr %IP% tcp dport 22 accept; flush ruleset'":                                   {},
		"nft replace rule filter input handle 5 ip saddr %IP% tcp dport 22 accept":                                       {},
		"nft delete rule filter input ip saddr %IP% tcp dport 22 accept":                                                 {closes, "[22]"},
		"nft delete rule filter input handle 5":                                                                          {closes, "[]"},
		"nft delete table filter":                                                                                        {},
		"ufw rule allow from %IP% to any port ssh proto tcp":                                                             {opens, "[22]"},
		"ufw allow proto udp to any port 53 from %IP%":                                                                   {opens, `["53/udp"]`},
		"ufw allow from %IP% to any app Samba":                                                                           {},
		"ufw allow from %IP% to any app SSH port 22":                                                                     {},
		"ufw allow from %IP% to 192.0.2.1 port 22":                                                                       {},
		"ufw allow from %IP% to any port 22 proto esp":                                                                   {},
		"ufw limit from %IP% to any port 22":                                                                             {},
		"ufw route allow from %IP% to any port 22":                                                                       {},
		"ufw allow out from %IP% to any port 22":                                                                         {},
		"ufw allow from %IP% to any port":                                                                                {},
		"ufw delete 3":                                                                                                   {closes, "[]"},
		"ufw disable":                                                                                                    {},
		"firewall-cmd --add-port=22/tcp":                                                                                 {},
		"firewall-cmd --add-source=%IP% --add-port=22/sctp":                                                              {},
		"firewall-cmd --add-source=%IP% --remove-port=22/tcp":                                                            {},
		"firewall-cmd --add-source=%IP% --add-port=22/tcp --reload":                                                      {},
		"firewall-cmd --add-source=%IP% --add-port=22/tcp --timeout=soon":                                                {},
		"firewall-cmd --direct --passthrough ipv4 -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT":                          {},
		"firewall-cmd --direct --add-rule ipv4 nat INPUT 0 -s %IP% -p tcp --dport 22 -j ACCEPT":                          {},
		"firewall-cmd --add-rich-rule='rule source address=%IP% service name=samba accept'":                              {},
		"firewall-cmd --add-rich-rule='rule source address=%IP% accept'":                                                 {},
		"firewall-cmd --add-rich-rule='rule service name=ssh accept'":                                                    {},
		"firewall-cmd --add-rich-rule='rule source address=%IP% service name=ssh accept limit value=1/m'":                {},
		"firewall-cmd --add-rich-rule='rule source address=%IP% port port=22 protocol=dccp accept'":                      {},
		"firewall-cmd --add-rich-rule='rule source address=%IP% destination address=192.0.2.1 service name=ssh accept'":  {},
		"firewall-cmd --add-rich-rule='rule source address=%IP% forward-port port=22 protocol=tcp to-port=2222 accept'":  {},
		"firewall-cmd --add-rich-rule='rule source address=%IP% service name=ssh accept; x'":                             {},
		"firewall-cmd --add-rich-rule='a rule source address=%IP% service name=ssh accept'":                              {},
		"firewall-cmd --remove-rich-rule='rule source address=\"%IP%\" service name=\"ssh\" accept' --zone work --quiet": {closes, "[22]"},
		"ipfw add allow udp from %IP% to me 53":                                                                          {opens, `["53/udp"]`},
		"ipfw add deny tcp from %IP% to any 22":                                                                          {},
		"ipfw add allow icmp from %IP% to any 22":                                                                        {},
		"ipfw add allow tcp from %IP% to any":                                                                            {},
		"ipfw add allow tcp from %IP% to 192.0.2.1 22":                                                                   {},
		"ipfw add allow tcp from %IP% to any 22 out":                                                                     {},
		"ipfw flush":      {},
		"ipfw delete 3 4": {},
		"sudo -u root ufw allow from %IP% to any port 22":      {},
		"sudo ufw allow from %IP% to any port 22 proto tcp":    {opens, "[22]"},
		"env X=1 iptables -I INPUT -s %IP% --dport 22":         {},
		"/bin/sh -c 'ufw allow from %IP% to any port 22'":      {},
		"knock_helper_ipt.sh -i -f %IP% -d 22 -c FORWARD":      {},
		"knock_helper_ipt.sh --insert --srcaddr=%IP% -d 80 -v": {opens, "[80]"},
	} {
		s, err := parseScript(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		e := understand(s)
		got := known{e.kind, portText(e.ports)}
		if !e.understood {
			got = known{}
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(known{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}
