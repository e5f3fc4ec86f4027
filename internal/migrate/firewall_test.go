package migrate

import (
	"strings"
	"testing"
)

// told describes in one line what a command does to a firewall.
func told(text string) string {
	s := scripts{v4: readScript(text)}
	if s.v4.wrong != nil {
		return "unreadable"
	}
	var b strings.Builder
	if o := s.opening(); o != nil {
		b.WriteString("opens")
		if len(o.ports) > 0 {
			b.WriteString(" " + portText(o.ports))
		}
		for _, more := range []struct {
			is   bool
			text string
		}{
			{len(o.to) > 0, " to " + strings.Join(o.to, ",")}, {o.device != "", " on " + o.device}, {o.lasts > 0, " for " + duration(o.lasts)},
			{o.ended > 0, " until " + duration(o.ended-o.began)}, {len(o.nat) > 0, " NAT: " + strings.Join(o.nat, "; ")},
			{strings.Contains(strings.Join(o.notes, ""), forEverybody), " (everybody)"}, {o.doubt != "", " ?" + o.doubt},
			{o.elsewhere != "" && len(o.ports) == 0, " by " + o.elsewhere},
		} {
			if more.is {
				b.WriteString(more.text)
			}
		}
	} else if s.closes() {
		b.WriteString("closes")
		for _, a := range closingOf(&s).acts {
			for _, part := range []string{strings.Trim(portText(a.ports), "[]"), a.to, a.elsewhere, a.number} {
				if part != "" {
					b.WriteString(" " + part)
				}
			}
		}
	} else if s.touchesFirewall() {
		b.WriteString("nothing certain")
	}
	if c := s.others(0, forEver); c != nil {
		b.WriteString("; runs " + strings.Join(c.arguments(), " "))
	}
	return b.String()
}

func TestWhatCommandsDoToAFirewall(t *testing.T) {
	for text, want := range map[string]string{
		"iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT":                    "opens [22]",
		"iptables -I INPUT -s %IP% -p 17 --dport :53 -j ACCEPT":                    `opens ["1-53/udp"]`,
		"iptables -A INPUT --src=%IP% --proto=tcp --dport=ssh,https --jump=ACCEPT": "opens [22, 443]",
		"ip6tables-legacy -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT":            "closes 22",
		"iptables -D INPUT 7":                                                            "closes",
		"iptables -s %IP% -p tcp --dport 22 -j ACCEPT":                                   "nothing certain",
		"iptables -R INPUT 1 -s %IP% -p tcp --dport 22 -j ACCEPT":                        "opens [22] ?it replaces rule 1 of the chain INPUT, and what that was is not known here",
		"iptables -I INPUT -s %IP% -p icmp -j ACCEPT":                                    "opens ?the protocol icmp has no ports",
		"iptables -I INPUT -s %IP% -p tcp --dport 22 --dport 23 -j ACCEPT":               "opens [22, 23]",
		"iptables -I INPUT -s %IP% -p tcp --dport 23:22 -j ACCEPT":                       "opens ?23:22 are not ports that a rule file can name",
		"iptables -I INPUT -s %IP% -p tcp --dport : -j ACCEPT":                           "opens ?: are not ports that a rule file can name",
		"iptables -I INPUT -s %IP% -p tcp --dport 22":                                    "nothing certain",
		"iptables -I INPUT -s %IP% -p tcp --dport 22 -j":                                 "nothing certain",
		"iptables -I INPUT -s %IP%,192.0.2.1 -p tcp --dport 22 -j ACCEPT":                "opens [22] (everybody) ?it names the source %IP%,192.0.2.1 and not the one that knocked",
		"iptables -I INPUT -i eth+ -s %IP% -p tcp --dport 22 -j ACCEPT":                  "opens [22] on eth*",
		"iptables -I INPUT -i eth* -s %IP% -p tcp --dport 22 -j ACCEPT":                  "opens ?its arguments come from the shell",
		"iptables -I INPUT -i größe -s %IP% -p tcp --dport 22 -j ACCEPT":                 "opens [22] on größe",
		"iptables -I INPUT -i gro\u0308ße -s %IP% -p tcp --dport 22 -j ACCEPT":           "opens [22] ?a rule file cannot name the interface größe",
		"iptables -I INPUT -i gr\xf6ße -s %IP% -p tcp --dport 22 -j ACCEPT":              "unreadable",
		"iptables -I INPUT -i 'e th' -s %IP% -p tcp --dport 22 -j ACCEPT":                "opens [22] ?a rule file cannot name the interface e th",
		"iptables -I INPUT -m state --state RELATED -s %IP% -p tcp --dport 22 -j ACCEPT": "opens [22] ?it is for connections that are RELATED, and a door is for new ones",
		"iptables -I DOCKER-USER -s %IP% -p tcp --dport 22 -j ACCEPT":                    "opens [22] ?the chain DOCKER-USER sees the port inside the container, and a door guards the port that Docker publishes",
		"iptables -F":                   "closes",
		"knock_add -a -f %IP% -d 22":    "opens [22]",
		"knock_add -f %IP% -d 22":       "nothing certain",
		"knock_add -a -d 22":            "opens [22] (everybody)",
		"knock_add -a -f %IP% -d 22 -t": "nothing certain",
		"nft add rule filter input ip saddr %IP% udp dport 53 log accept":                                               `opens ["53/udp"]`,
		"nft add rule filter input ip saddr %IP% udp dport 53 accept drop":                                              "nothing certain",
		"nft add rule filter input ip saddr %IP% accept":                                                                `opens ["1-65535/tcp", "1-67/udp", "69-545/udp", "547-65535/udp"]`,
		"nft add rule filter input tcp dport 22 accept":                                                                 "opens [22] (everybody)",
		"nft add rule filter input ip daddr %IP% tcp dport 22 accept":                                                   "nothing certain",
		"nft add rule filter input ip saddr %IP% tcp sport 22 accept":                                                   `opens ["1-65535/tcp"] ?it names the source port 22, and a door knows only addresses`,
		"nft add rule filter input ip saddr %IP% udp sport 22 accept":                                                   `opens ["1-67/udp", "69-545/udp", "547-65535/udp"] ?it names the source port 22, and a door knows only addresses`,
		"nft add rule filter input ip saddr %IP% tcp dport != 22 accept":                                                "opens [22] ?it has a negation or a comparison, which a door has not",
		"nft add rule filter input ip saddr %IP% tcp dport {22,23 accept":                                               "nothing certain",
		"nft add rule filter input ip saddr %IP% tcp dport 22 ct state established accept":                              "opens [22] ?it is for connections that are established, and a door is for new ones",
		"nft add rule filter input ip saddr %IP% tcp dport 22 ct state related, new accept":                             "opens [22]",
		"nft add rule filter input ip saddr %IP% tcp dport 22 udp dport 22 accept":                                      `opens ["22/udp"] ?it names destination ports twice`,
		"nft add rule filter forward ip saddr %IP% tcp dport 22 accept":                                                 `opens [22] ?it lets packets through to other hosts and does not say which, and a door needs their addresses: to = ["192.0.2.1"]`,
		"nft add rule filter input ip saddr %IP% tcp dport 22":                                                          "nothing certain",
		"nft 'add rule filter input ip saddr %IP% tcp dport 22 accept; flush ruleset'":                                  "opens [22] ?it closes at once what it opens",
		"nft replace rule filter input handle 5 ip saddr %IP% tcp dport 22 accept":                                      "opens [22] ?it replaces a rule, and what that was is not known here",
		"nft delete rule filter input ip saddr %IP% tcp dport 22 accept":                                                "closes 22",
		"nft delete rule filter input handle 5":                                                                         "closes",
		"nft delete table filter":                                                                                       "nothing certain",
		"ufw rule allow from %IP% to any port ssh proto tcp":                                                            "opens [22]",
		"ufw allow proto udp to any port 53 from %IP%":                                                                  `opens ["53/udp"]`,
		"ufw allow from %IP% to any app Samba":                                                                          `opens [139, 445, "137-138/udp"]`,
		"ufw allow from %IP% to any app SSH port 22":                                                                    "opens [22]",
		"ufw allow from %IP% to 192.0.2.1 port 22":                                                                      `opens [22, "22/udp"] to 192.0.2.1`,
		"ufw allow from %IP% to any port 22 proto esp":                                                                  "opens ?the protocol esp has no ports",
		"ufw limit from %IP% to any port 22":                                                                            `opens [22, "22/udp"]`,
		"ufw route allow from %IP% to any port 22":                                                                      `opens [22, "22/udp"] ?it lets packets through to other hosts and does not say which, and a door needs their addresses: to = ["192.0.2.1"]`,
		"ufw allow out from %IP% to any port 22":                                                                        "nothing certain",
		"ufw allow from %IP% to any port":                                                                               `opens ["1-65535/tcp", "1-67/udp", "69-545/udp", "547-65535/udp"] ?the rule is not complete`,
		"ufw delete 3":                                                                                                  "closes",
		"firewall-cmd --add-port=22/tcp":                                                                                "opens [22] (everybody)",
		"firewall-cmd --add-source=%IP% --add-port=22/sctp":                                                             "opens ?22/sctp is not a port that a rule file can name",
		"firewall-cmd --add-source=%IP% --remove-port=22/tcp":                                                           "closes 22",
		"firewall-cmd --add-source=%IP% --add-port=22/tcp --reload":                                                     "opens [22]",
		"firewall-cmd --add-source=%IP% --add-port=22/tcp --timeout=soon":                                               "opens [22] ?its timeout is not a time",
		"firewall-cmd --direct --passthrough ipv4 -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT":                         "opens [22]",
		"firewall-cmd --direct --add-rule ipv4 nat INPUT 0 -s %IP% -p tcp --dport 22 -j ACCEPT":                         "opens [22] ?it changes the table nat",
		"firewall-cmd --add-rich-rule='rule source address=%IP% service name=samba accept'":                             `opens [139, 445, "137-138/udp"]`,
		"firewall-cmd --add-rich-rule='rule source address=%IP% accept'":                                                `opens ["1-65535/tcp", "1-67/udp", "69-545/udp", "547-65535/udp"]`,
		"firewall-cmd --add-rich-rule='rule service name=ssh accept'":                                                   "opens [22] (everybody)",
		"firewall-cmd --add-rich-rule='rule source address=%IP% service name=ssh accept limit value=1/m'":               "opens [22]",
		"firewall-cmd --add-rich-rule='rule source address=%IP% port port=22 protocol=dccp accept'":                     "opens [22] ?the protocol dccp has no ports",
		"firewall-cmd --add-rich-rule='rule source address=%IP% destination address=192.0.2.1 service name=ssh accept'": "opens [22] to 192.0.2.1",
		"firewall-cmd --add-rich-rule='rule source address=%IP% forward-port port=22 protocol=tcp to-port=2222 accept'": "opens [22] NAT: firewall-cmd --permanent --add-forward-port=port=22:proto=tcp:toport=2222:toaddr=",
		"firewall-cmd --add-rich-rule='rule source address=%IP% service name=ssh accept; x'":                            "nothing certain",
		"firewall-cmd --add-rich-rule='a rule source address=%IP% service name=ssh accept'":                             "opens [22] ?a rich rule begins with: rule",
		`firewall-cmd --remove-rich-rule='rule source address="%IP%" service name="ssh" accept' --zone work --quiet`:    "closes 22",
		"ipfw add allow udp from %IP% to me 53":                                                                         `opens ["53/udp"]`,
		"ipfw add deny tcp from %IP% to any 22":                                                                         "closes 22",
		"ipfw add allow icmp from %IP% to any 22":                                                                       `opens [22, "22/udp"] ?it has icmp, which a door has not`,
		"ipfw add allow tcp from %IP% to any":                                                                           `opens ["1-65535/tcp"]`,
		"ipfw add allow tcp from %IP% to 192.0.2.1 22":                                                                  "opens [22] to 192.0.2.1",
		"ipfw add allow tcp from %IP% to any 22 out":                                                                    "nothing certain",
		"ipfw flush":      "closes",
		"ipfw delete 3 4": "closes ipfw 3 ipfw 4",
		"sudo -u root ufw allow from %IP% to any port 22":                                                `opens [22, "22/udp"]`,
		"sudo ufw allow from %IP% to any port 22 proto tcp":                                              "opens [22]",
		"env X=1 iptables -I INPUT -s %IP% --dport 22":                                                   "nothing certain",
		"/bin/sh -c 'ufw allow from %IP% to any port 22'":                                                `opens [22, "22/udp"]`,
		"knock_helper_ipt.sh -i -f %IP% -d 22 -c FORWARD":                                                `opens [22] ?it lets packets through to other hosts and does not say which, and a door needs their addresses: to = ["192.0.2.1"]`,
		"knock_helper_ipt.sh --insert --srcaddr=%IP% -d 80 -v":                                           "opens [80]",
		"iptables -I INPUT -s %IP% -j ACCEPT":                                                            `opens ["1-65535/tcp", "1-67/udp", "69-545/udp", "547-65535/udp"]`,
		"iptables -I INPUT -p tcp --dport 2200 -j ACCEPT":                                                "opens [2200] (everybody)",
		"iptables -I INPUT -s 0.0.0.0/0 -p tcp --dport 2200 -j ACCEPT":                                   "opens [2200] (everybody)",
		"iptables -I INPUT -s 198.51.100.7 -p tcp --dport 2200 -j ACCEPT":                                "opens [2200] (everybody) ?it names the source 198.51.100.7 and not the one that knocked",
		"iptables -D INPUT -p tcp --dport 2200 -j DROP":                                                  "opens [2200] (everybody)",
		"iptables -A INPUT -p tcp --dport 2200 -j DROP":                                                  "closes 2200",
		"iptables -I INPUT -s %IP% -p tcp --dport 2200 -j REJECT --reject-with tcp-reset":                "closes 2200",
		"iptables -I INPUT -s %IP% -p tcp --dport 2200 -j LOG --log-prefix 'knock: '":                    "nothing certain",
		"iptables -A SSH_OK -s %IP% -j ACCEPT":                                                           "opens by the chain SSH_OK",
		"iptables -I INPUT -s %IP% -p tcp --dport 2200 -j ACCEPT_LOG":                                    "opens [2200]",
		"iptables -I INPUT -s %IP% -p tcp --dport 2200 -j LOGDROP":                                       "closes 2200",
		"iptables -I FORWARD -s %IP% -d 10.0.0.5 -p tcp --dport 3389 -j ACCEPT":                          "opens [3389] to 10.0.0.5",
		"iptables -I FORWARD -s %IP% -i ppp0 -o br0 -d 10.0.0.5/32 -p tcp -m tcp --dport 3389 -j ACCEPT": "opens [3389] to 10.0.0.5 on ppp0",
		"iptables -I DOCKER-USER -s %IP% -p tcp -m conntrack --ctorigdstport 8080 -j RETURN":             "opens [8080]",
		"iptables -t nat -I PREROUTING -s %IP% -p tcp --dport 443 -j REDIRECT --to-ports 2200":           "opens [443] NAT: iptables -t nat -A PREROUTING -p tcp --dport 443 -j REDIRECT --to-ports 2200",
		"iptables -t nat -A PREROUTING -i eth0 -p tcp -s %IP% -d 203.0.113.7 --dport 8022 -j DNAT --to-destination 10.0.0.5:22 && iptables -A FORWARD -s %IP% -d 10.0.0.5 -p tcp --dport 22 -j ACCEPT": "opens [8022] to 203.0.113.7 on eth0 NAT: iptables -t nat -A PREROUTING -i eth0 -p tcp -d 203.0.113.7 --dport 8022 -j DNAT --to-destination '10.0.0.5:22'",
		"iptables -I INPUT -s %IP% -p tcp --dport 22 -m geoip --src-cc DE -j ACCEPT":   "opens [22] ?it has the match geoip, which a door has not",
		"iptables -I INPUT -s %IP% -p tcp --dport 22 -m limit --limit 3/min -j ACCEPT": "opens [22]",
		"iptables -P INPUT ACCEPT": `opens ["1-65535/tcp", "1-67/udp", "69-545/udp", "547-65535/udp"] (everybody)`,
		"iptables -F KNOCK":        "closes",
		"iptables -C INPUT -s %IP% -p tcp --dport 22 -j ACCEPT || iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT":                                         "opens [22]",
		"iptables -C INPUT -s %IP% -p tcp --dport 22 -j ACCEPT 2>/dev/null || { iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; logger opened; }":         "opens [22]; runs logger opened",
		"if ! iptables -C INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; then iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; fi":                             "opens [22]",
		"iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT || iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT":                                         "opens [22] ?it does one thing or another, as it joins them by ||",
		"iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT || true":                                                                                          "opens [22]",
		"iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT &":                                                                                                "opens [22]",
		"iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT >/dev/null 2>&1":                                                                                  "opens [22]",
		"iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT && sleep 40 && iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT":                             "opens [22] until 40s",
		"iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT && (sleep 40; iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; logger shut) & logger open":  "opens [22] until 40s; runs /bin/sh -c logger shut; logger open",
		"iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; nohup sh -c 'sleep 1m; iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT' >/dev/null 2>&1 &": "opens [22] until 1m",
		"iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; echo 'iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT' | at now + 5 minutes":               "opens [22] until 5m",
		"iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; at now + 1 hour <<< 'iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT'":                     "opens [22] until 1h",
		"iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; systemd-run --on-active=90 iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT":                "opens [22] until 1m30s",
		"iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; echo 'iptables -F' | at noon":                                                                    "opens [22] ?it waits for a time of day; runs /bin/sh -c echo 'iptables -F' | at noon",
		"sudo -n /sbin/iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT":                                                                                    "opens [22]",
		"timeout 10 /sbin/iptables -w -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT":                                                                              "opens [22]",
		`/bin/bash -c "iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; logger -t knock '%IP%'"`:                                                           "opens [22]; runs logger -t knock %IP%",
		"iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; touch /run/knock/%IP%; echo $(date) %IP% >> /var/log/knock":                                      "opens [22]; runs /bin/sh -c touch /run/knock/$KNOCKWALL_SOURCE; echo $(date) $KNOCKWALL_SOURCE >> /var/log/knock",
		"for p in 22 80; do iptables -I INPUT -s %IP% -p tcp --dport $p -j ACCEPT; done":                                                                         "opens [22, 80]",
		"IP=%IP%; iptables -I INPUT -s $IP -p tcp --dport 22 -j ACCEPT; echo $IP":                                                                                "opens [22]; runs /bin/sh -c IP=$KNOCKWALL_SOURCE; echo $IP",
		"while true; do iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; done":                                                                             "nothing certain; runs /bin/sh -c while true; do iptables -I INPUT -s $KNOCKWALL_SOURCE -p tcp --dport 22 -j ACCEPT; done",
		"case %IP% in *:*) ip6tables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT;; *) iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT;; esac":             "opens [22]",
		"iptables -I INPUT -s %IP% -p tcp --dport $(cat /etc/port) -j ACCEPT":                                                                                    "opens ?its arguments come from the shell",
		"iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT && iptables -I OUTPUT -d %IP% -p tcp --sport 22 -j ACCEPT":                                        "opens [22]",
		"iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; iptables -I INPUT -s %IP% -p tcp --dport 22 -j LOG":                                              "opens [22]",
		"iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; iptables -D INPUT -s %IP% -p tcp --dport 80 -j ACCEPT":                                           "opens [22]",
		"iptables-restore < /etc/iptables/open.rules":                                                                                                            "nothing certain; runs /bin/sh -c iptables-restore < /etc/iptables/open.rules",
		"nft add element inet fw friends { %IP% timeout 15m }":                                                                                                   `opens for 15m by the set "friends"`,
		"nft add element inet fw friends '{ %IP% . 22 timeout 1h30m }'":                                                                                          `opens [22, "22/udp"] for 90m`,
		`nft 'add element ip fw friends { %IP% . tcp . 22 comment "x" }'`:                                                                                        "opens [22]",
		"nft delete element inet fw friends { %IP% }":                                                                                                            `closes the set "friends"`,
		"nft flush set inet fw friends":                                                                     `closes the set "friends"`,
		"nft add element inet fw banned { %IP% }":                                                           `closes the set "banned"`,
		"nft insert rule ip nat PREROUTING ip saddr %IP% tcp dport 443 redirect to :2200":                   "opens [443] NAT: nft 'add rule ip nat PREROUTING tcp dport 443 redirect to :2200'",
		"nft add rule inet filter forward ip saddr %IP% ip daddr 10.0.0.5 tcp dport 22 ct state new accept": "opens [22] to 10.0.0.5",
		"echo 'add rule inet filter input ip saddr %IP% tcp dport 22 accept' | nft -f -":                    "opens [22]",
		"nft -f /etc/nftables.open":                                                                         "opens ?its rules are in a file that is not read here",
		"ipset add friends %IP%":                                                                            `opens by the set "friends"`,
		"ipset -exist add friends %IP%,tcp:22 timeout 600":                                                  "opens [22] for 10m",
		"ipset -A friends %IP%":                                                                             `opens by the set "friends"`,
		"ipset del friends %IP%":                                                                            `closes the set "friends"`,
		"ipset flush friends":                                                                               `closes the set "friends"`,
		"pfctl -t friends -T add %IP%":                                                                      `opens by the table "friends" of pf`,
		"pfctl -q -t friends -T delete %IP%/32":                                                             `closes the table "friends" of pf`,
		"echo 'pass in quick proto tcp from %IP% to any port 22 keep state' | pfctl -a knock -f -":          "opens [22]",
		"pfctl -a knock -F rules":                                                                           "closes",
		"echo +%IP% > /proc/net/xt_recent/friends":                                                          `opens by the list "friends" of the match recent`,
		"echo -%IP% > /proc/net/xt_recent/friends":                                                          `closes the list "friends" of the match recent`,
		"echo 'sshd: %IP%' >> /etc/hosts.allow":                                                             "opens [22]",
		"ufw allow 2200/tcp":                                                                                "opens [2200] (everybody)",
		"ufw allow 2200":                                                                                    `opens [2200, "2200/udp"] (everybody)`,
		"ufw allow ssh":                                                                                     "opens [22] (everybody)",
		"ufw allow OpenSSH":                                                                                 "opens [22] (everybody)",
		"ufw allow 'Nginx Full'":                                                                            "opens [80, 443] (everybody)",
		"ufw allow MyApp":                                                                                   "opens (everybody) ?it names the application \"MyApp\", whose ports `ufw app info` shows",
		"ufw allow from %IP%":                                                                               `opens ["1-65535/tcp", "1-67/udp", "69-545/udp", "547-65535/udp"]`,
		"ufw allow from %IP% to 10.0.0.1 port 80:90 proto udp":                                              `opens ["80-90/udp"] to 10.0.0.1`,
		"ufw delete allow 2200/tcp":                                                                         "closes 2200",
		"ufw --force delete deny 2200/tcp":                                                                  "opens [2200] (everybody)",
		"ufw route allow proto tcp from %IP% to 10.0.0.5 port 3389":                                         "opens [3389] to 10.0.0.5",
		"ufw disable": `opens ["1-65535/tcp", "1-67/udp", "69-545/udp", "547-65535/udp"] (everybody) ?it switched the whole firewall off`,
		"ufw reload":  "nothing certain",
		"firewall-cmd --zone=public --add-service=ssh":     "opens [22] (everybody)",
		"firewall-cmd --add-port=2200/tcp --timeout=5m":    "opens [2200] for 5m (everybody)",
		"firewall-cmd --remove-service=ssh":                "closes 22",
		"firewall-cmd --zone=trusted --add-source=%IP%":    `opens ["1-65535/tcp", "1-67/udp", "69-545/udp", "547-65535/udp"]`,
		"firewall-cmd --zone=friends --add-source=%IP%/32": `opens by firewalld's zone "friends"`,
		"firewall-cmd --ipset=friends --add-entry=%IP%":    `opens by the set "friends"`,
		`firewall-cmd --add-rich-rule='rule family=ipv4 source address=%IP% service name=https log prefix="a b" level=info accept'`: "opens [443]",
		"firewall-cmd --add-forward-port=port=443:proto=tcp:toport=2200":                                                            "opens [443] NAT: firewall-cmd --permanent --add-forward-port=port=443:proto=tcp:toport=2200 (everybody)",
		"firewall-cmd --add-service=nonesuch":                                                                                       "opens (everybody) ?it names the service \"nonesuch\", whose ports `firewall-cmd --info-service` shows",
		"ipfw -q add 00700 pass proto tcp src-ip %IP% dst-port 2200":                                                                "opens [2200]",
		"ipfw add 00101 pass tcp from %IP% to me 22 in keep-state":                                                                  "opens [22]",
		"ipfw add 100 allow { proto tcp or proto udp } src-ip %IP% dst-port 53":                                                     `opens [53, "53/udp"]`,
		"ipfw table 1 add %IP%":             `opens by the table "1" of ipfw`,
		"ipfw delete 00700":                 "closes ipfw 700",
		"csf -ta %IP% 3600":                 `opens ["1-65535/tcp", "1-67/udp", "69-545/udp", "547-65535/udp"] for 1h`,
		"logger %IP%":                       "; runs logger %IP%",
		"/usr/local/sbin/open-port %IP% 22": "; runs /usr/local/sbin/open-port %IP% 22",
		"systemctl start ssh":               "; runs systemctl start ssh",
		"sudo -n logger hello":              "; runs logger hello",
		"iptables -I INPUT -s %IP% -p tcp --dport domain -j ACCEPT":                           "opens [53]",
		"iptables -I INPUT -s %IP% -p udp --dport domain -j ACCEPT":                           `opens ["53/udp"]`,
		"iptables -A INPUT -s %IP% -p tcp -m multiport --dports ssh,http,8000:8010 -j ACCEPT": `opens [22, 80, "8000-8010/tcp"]`,
	} {
		if got := told(text); got != want {
			t.Errorf("%s\n got %s\nwant %s", text, got, want)
		}
	}
}
