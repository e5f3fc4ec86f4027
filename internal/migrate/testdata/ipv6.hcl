# From ipv6.conf, by `knockwall import`. What remains to be done:
#
# 1. Read this file. Comments above each door say what is different from
#    before. Then check it:
#        knockwall check --config THIS-FILE
#
# 2. Put the rules in force, in a session that stays open. If this file is not
#    in /etc/knockwall.d, move it there. The former rules return unless you
#    confirm the new ones in time, from a new connection:
#        sudo knockwall reload --confirm 2m
#        sudo knockwall confirm
#
# 3. Then, and not before, let your firewall accept these ports, from
#    everybody: 22/tcp, 2222/tcp. Under knockd your firewall drops these
#    ports, and knockd inserts an ACCEPT for one source before that DROP.
#    knockwall adds no rules to your firewall. Its table comes before the
#    firewall, and only refuses sources that have not knocked. Your firewall
#    still decides about what the table lets pass. As long as that DROP is
#    there, nobody gets in, with or without a knock. If you remove it before
#    the wall is up, everybody gets in. So replace it by an ACCEPT while the
#    wall is up, and save the rules. Other rules can stay. The command depends
#    on your firewall (ip6tables for IPv6):
#        iptables -I INPUT -p tcp --dport 22 -j ACCEPT
#        ufw allow 22/tcp
#        firewall-cmd --permanent --add-port=22/tcp && firewall-cmd --reload
#
# 4. Try a knock. Then stop knockd, which would go on to hear the knocks and
#    to run its commands.
#        sudo systemctl disable --now knockd

door "fallback" {
  ports       = [22]
  sequence    = [5001, "27001/udp", 1801]
  seq_timeout = "25s"
  window      = "20s"
}

door "same" {
  ports       = [22]
  sequence    = [5002, "27002/udp", 1802]
  seq_timeout = "25s"
  window      = "10s"
}

# knockd opened different ports to IPv4 and IPv6 sources. Here all of them
# open to both.
door "different" {
  ports       = [22, 2222]
  sequence    = [5003, "27003/udp", 1803]
  seq_timeout = "25s"
  window      = "10s"
}

# knockd did nothing for IPv6 sources. Here IPv6 sources that knock are
# admitted, too. To exclude IPv6, list this host's IPv4 addresses in "to".
# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "only4" {
  ports       = [22]
  sequence    = [5004, "27004/udp", 1804]
  seq_timeout = "25s"
  window      = "30s"
}

# knockd did nothing for IPv4 sources. Here IPv4 sources that knock are
# admitted, too.
# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "only6" {
  ports       = [22]
  sequence    = [5005, "27005/udp", 1805]
  seq_timeout = "25s"
  window      = "30s"
}

# knockd opened different ports to IPv4 and IPv6 sources. Here all of them
# open to both.
# The command opened every port, so this door guards every port, also those
# that everybody reaches today, such as those of a web server. Leave these
# out: write into "ports" only what is to be hidden, and let your firewall
# accept just that. The knocks are left out already, and 68/udp and 546/udp,
# as DHCP needs them.
# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "unknown6" {
  ports       = ["1-1800/tcp", "1807-5000/tcp", "5007-65535/tcp", "1-67/udp", "69-545/udp", "547-27000/udp", "27007-65535/udp"]
  sequence    = [5006, "27006/udp", 1806]
  seq_timeout = "25s"
  window      = "30s"
}
