package migrate

import (
	"slices"
	"strings"

	"github.com/knockwall/knockwall/internal/packet"
)

// services are the ports of the service registry (RFC 6335, as in /etc/services) and of
// firewalld that people open by name. The ports are those of a rule file. A port without a
// protocol is for both.
var services = map[string]string{
	"ftp-data": "20/tcp", "ftp": "21/tcp", "ssh": "22/tcp", "sftp": "22/tcp", "telnet": "23/tcp", "smtp": "25/tcp", "mail": "25/tcp",
	"time": "37", "whois": "43/tcp", "domain": "53", "dns": "53", "dns-over-tls": "853/tcp", "bootps": "67/udp", "dhcp": "67/udp",
	"bootpc": "68/udp", "tftp": "69/udp", "gopher": "70/tcp", "finger": "79/tcp", "http": "80/tcp", "www": "80/tcp",
	"kerberos": "88", "pop3": "110/tcp", "sunrpc": "111", "rpc-bind": "111", "portmapper": "111", "auth": "113/tcp", "ident": "113/tcp",
	"nntp": "119/tcp", "ntp": "123/udp", "netbios-ns": "137/udp", "netbios-dgm": "138/udp", "netbios-ssn": "139/tcp",
	"imap": "143/tcp", "imap2": "143/tcp", "snmp": "161/udp", "snmptrap": "162/udp", "bgp": "179/tcp", "irc": "194/tcp", "ldap": "389/tcp",
	"https": "443/tcp", "http3": "443/udp", "microsoft-ds": "445/tcp", "smb": "445/tcp", "kpasswd": "464",
	"smtps": "465/tcp", "submissions": "465/tcp", "ssmtp": "465/tcp", "isakmp": "500/udp", "syslog": "514/udp",
	"printer": "515/tcp", "rtsp": "554", "submission": "587/tcp", "smtp-submission": "587/tcp", "ipp": "631/tcp", "ldaps": "636/tcp",
	"rsync": "873/tcp", "rsyncd": "873/tcp", "ftps": "990/tcp", "telnets": "992/tcp", "imaps": "993/tcp", "ircs": "994/tcp", "pop3s": "995/tcp",
	"socks": "1080/tcp", "openvpn": "1194/udp", "ms-sql-s": "1433/tcp", "mssql": "1433/tcp", "l2tp": "1701/udp", "pptp": "1723/tcp",
	"radius": "1812/udp", "mqtt": "1883/tcp", "nfs": "2049", "docker-registry": "5000/tcp", "docker-swarm": "2377/tcp", "etcd-client": "2379/tcp",
	"squid": "3128/tcp", "mysql": "3306/tcp", "ms-wbt-server": "3389/tcp", "rdp": "3389/tcp", "stun": "3478", "turn": "3478", "svn": "3690/tcp",
	"ipsec-nat-t": "4500/udp", "iax": "4569/udp", "sip": "5060", "sips": "5061/tcp", "xmpp-client": "5222/tcp", "xmpp-server": "5269/tcp",
	"mdns": "5353/udp", "postgresql": "5432/tcp", "postgres": "5432/tcp", "amqp": "5672/tcp", "vnc": "5900/tcp", "vnc-server": "5900-5903/tcp",
	"x11": "6000/tcp", "redis": "6379/tcp", "ircd": "6667/tcp", "http-alt": "8080/tcp", "webcache": "8080/tcp", "https-alt": "8443/tcp",
	"plex": "32400/tcp", "cockpit": "9090/tcp", "prometheus": "9090/tcp", "elasticsearch": "9200/tcp", "git": "9418/tcp", "webmin": "10000/tcp",
	"zabbix-agent": "10050/tcp", "zabbix-server": "10051/tcp", "memcache": "11211/tcp", "syncthing": "22000", "mongodb": "27017/tcp",
	"wireguard": "51820/udp", "transmission-client": "51413", "mosh": "60000-61000/udp", "proxy": "8080/tcp", "minecraft": "25565/tcp",
}

// composites are services of firewalld and profiles of ufw's packages with other ports than
// the service registry has under their name. ufw's names have capitals.
var composites = map[string][]string{
	"samba": {"139/tcp", "445/tcp", "137-138/udp"}, "Samba": {"139/tcp", "445/tcp", "137-138/udp"}, "CIFS": {"139/tcp", "445/tcp", "137-138/udp"},
	"ipsec": {"500/udp", "4500/udp"}, "freeipa-ldap": {"80/tcp", "443/tcp", "88", "464", "389/tcp"},
	"OpenSSH": {"22/tcp"}, "SSH": {"22/tcp"}, "Telnet": {"23/tcp"}, "DNS": {"53"}, "Bind9": {"53"}, "NTP": {"123/udp"}, "NFS": {"2049"},
	"WWW": {"80/tcp"}, "WWW Secure": {"443/tcp"}, "WWW Full": {"80/tcp", "443/tcp"}, "WWW Cache": {"8080/tcp"},
	"Nginx HTTP": {"80/tcp"}, "Nginx HTTPS": {"443/tcp"}, "Nginx Full": {"80/tcp", "443/tcp"}, "Nginx QUIC": {"443/udp"},
	"Apache": {"80/tcp"}, "Apache Secure": {"443/tcp"}, "Apache Full": {"80/tcp", "443/tcp"},
	"Lighttpd HTTP": {"80/tcp"}, "Lighttpd HTTPS": {"443/tcp"}, "Lighttpd Full": {"80/tcp", "443/tcp"},
	"SMTP": {"25/tcp"}, "Postfix": {"25/tcp"}, "Postfix SMTPS": {"465/tcp"}, "Postfix Submission": {"587/tcp"}, "Mail submission": {"587/tcp"},
	"IMAP": {"143/tcp"}, "IMAPS": {"993/tcp"}, "Dovecot IMAP": {"143/tcp"}, "Dovecot Secure IMAP": {"993/tcp"},
	"POP3": {"110/tcp"}, "POP3S": {"995/tcp"}, "Dovecot POP3": {"110/tcp"}, "Dovecot Secure POP3": {"995/tcp"},
	"CUPS": {"631"}, "IPP": {"631"}, "LPD": {"515/tcp"}, "VNC": {"5900/tcp"}, "Squid": {"3128/tcp"},
	"Transmission": {"51413/tcp"}, "Deluge": {"6881-6891/tcp"}, "MSN": {"1863/tcp"}, "XMPP": {"5222/tcp", "5269/tcp"}, "PostgreSQL": {"5432/tcp"},
}

// servicePorts returns the ports of a named service or of a profile.
func servicePorts(name string) ([]packet.PortRange, bool) {
	list, ok := composites[name]
	if !ok {
		one, known := services[strings.ToLower(name)]
		if !known {
			return nil, false
		}
		list = []string{one}
	}
	var ports []packet.PortRange
	for _, text := range list {
		protocols := []string{""}
		if !strings.Contains(text, "/") {
			protocols = []string{"/tcp", "/udp"}
		}
		for _, protocol := range protocols {
			r, err := packet.ParsePortRange(text + protocol)
			if err != nil {
				return nil, false
			}
			ports = append(ports, r)
		}
	}
	return ports, true
}

// portList reads port lists such as 22, ssh and 80,443, and ranges. separators are the
// characters that can be between the first and the last port of a range, of which one may be
// missing. A name stands for its numbers, whatever the protocol is.
func portList(s, separators string, protocols []packet.Protocol) ([]packet.PortRange, bool) {
	var ports []packet.PortRange
	for item := range strings.SplitSeq(s, ",") {
		item = strings.TrimSpace(item)
		ranges, ok := servicePorts(item)
		if !ok {
			r, ok := portRange(item, separators)
			if !ok {
				return nil, false
			}
			ranges = []packet.PortRange{r}
		}
		for _, r := range ranges {
			for _, r.Protocol = range protocols {
				ports = append(ports, r)
			}
		}
	}
	return distinct(ports), true
}

func portRange(item, separators string) (r packet.PortRange, ok bool) {
	first, last := item, item
	if i := strings.IndexAny(item, separators); i >= 0 {
		first, last = item[:i], item[i+1:]
		switch {
		case first == "" && last != "":
			first = "1"
		case last == "" && first != "":
			last = "65535"
		}
		if first == "0" {
			first = "1"
		}
	}
	var ok1, ok2 bool
	r.First, ok1 = packet.ParsePortNumber(first)
	r.Last, ok2 = packet.ParsePortNumber(last)
	return r, ok1 && ok2 && r.First <= r.Last
}

// protocols reads the protocol TCP or UDP, by name or number.
func protocols(s string) ([]packet.Protocol, bool) {
	switch strings.ToLower(s) {
	case "tcp", "6":
		return onlyTCP, true
	case "udp", "17":
		return onlyUDP, true
	}
	return nil, false
}

var (
	onlyTCP = []packet.Protocol{packet.TCP}
	onlyUDP = []packet.Protocol{packet.UDP}
	both    = []packet.Protocol{packet.TCP, packet.UDP}
)

// everyPort returns all ports of the protocols that a door can guard. 68/udp and 546/udp are
// not among them: by these DHCP gives the host its own addresses.
func everyPort(protocols []packet.Protocol) []packet.PortRange {
	var ports []packet.PortRange
	for _, p := range protocols {
		if p == packet.TCP {
			ports = append(ports, packet.PortRange{First: 1, Last: 65535, Protocol: p})
			continue
		}
		ports = append(ports, packet.PortRange{First: 1, Last: 67, Protocol: p},
			packet.PortRange{First: 69, Last: 545, Protocol: p}, packet.PortRange{First: 547, Last: 65535, Protocol: p})
	}
	return ports
}

// distinct sorts ports, TCP first, and removes duplicates.
func distinct(ports []packet.PortRange) []packet.PortRange {
	ports = slices.Clone(ports)
	slices.SortFunc(ports, func(a, b packet.PortRange) int {
		for _, d := range []int{int(a.Protocol) - int(b.Protocol), int(a.First) - int(b.First), int(a.Last) - int(b.Last)} {
			if d != 0 {
				return d
			}
		}
		return 0
	})
	return slices.Compact(ports)
}
