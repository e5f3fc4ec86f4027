# From iptables.conf, by `knockwall import`. What remains to be done:
#
# 1. Read this file. Comments above each door say what is different from
#    before. Then check it:
#        knockwall check --config THIS-FILE
#
# 2. The commands changed the firewall for IPv4 only. The doors guard IPv6 as
#    well: there, too, nobody gets in without a knock, and your firewall for
#    IPv6 (ip6tables) has to accept the ports. To guard IPv4 only, list this
#    host's IPv4 addresses in "to" of each door.
#
# 3. Put the rules in force, in a session that stays open. If this file is not
#    in /etc/knockwall.d, move it there. The former rules return unless you
#    confirm the new ones in time, from a new connection:
#        sudo knockwall reload --confirm 2m
#        sudo knockwall confirm
#
# 4. Then, and not before, let your firewall accept these ports, from
#    everybody: 22/tcp, 23/tcp, 53/tcp, 80/tcp, 443/tcp, 1000-1010/tcp,
#    60000-65535/tcp, 53/udp, 51820/udp. Under knockd your firewall drops
#    these ports, and knockd inserts an ACCEPT for one source before that
#    DROP. knockwall adds no rules to your firewall. Its table comes before
#    the firewall, and only refuses sources that have not knocked. Your
#    firewall still decides about what the table lets pass. As long as that
#    DROP is there, nobody gets in, with or without a knock. If you remove it
#    before the wall is up, everybody gets in. So replace it by an ACCEPT
#    while the wall is up, and save the rules. Other rules can stay. The
#    command depends on your firewall (ip6tables for IPv6):
#        iptables -I INPUT -p tcp --dport 22 -j ACCEPT
#        ufw allow 22/tcp
#        firewall-cmd --permanent --add-port=22/tcp && firewall-cmd --reload
#
# 5. Try a knock. Then stop knockd, which would go on to hear the knocks and
#    to run its commands.
#        sudo systemctl disable --now knockd

door "multiport" {
  ports       = [22, 80, "1000-1010/tcp"]
  sequence    = [5001, "27001/udp", 1801]
  seq_timeout = "25s"
  window      = "20s"
}

door "udp" {
  ports       = ["51820/udp"]
  sequence    = [5002, "27002/udp", 1802]
  seq_timeout = "25s"
  window      = "20s"
}

door "state" {
  ports       = [22]
  sequence    = [5003, "27003/udp", 1803]
  seq_timeout = "25s"
  window      = "20s"
}

door "conntrack" {
  ports       = [443]
  sequence    = [5004, "27004/udp", 1804]
  seq_timeout = "25s"
  window      = "20s"
}

# The command named the interface eth0, so the door guards only this one. On
# other interfaces your firewall decides alone: everybody can reach what it
# accepts there.
door "interface" {
  ports       = [22]
  sequence    = [5005, "27005/udp", 1805]
  seq_timeout = "25s"
  window      = "20s"
  interfaces  = ["eth0"]
}

door "two" {
  ports       = [53, "53/udp"]
  sequence    = [5006, "27006/udp", 1806]
  seq_timeout = "25s"
  window      = "20s"
}

door "anew" {
  ports       = [23]
  sequence    = [5007, "27007/udp", 1807]
  seq_timeout = "25s"
  window      = "20s"
}

door "helper" {
  ports       = [443]
  sequence    = [5008, "27008/udp", 1808]
  seq_timeout = "25s"
  window      = "20s"
}

# knockd did nothing after this Cmd_Timeout, as there is no Stop_Command. Here
# the door closes after it. Connections stay when it closes.
door "open-ended" {
  ports       = ["60000-65535/tcp"]
  sequence    = [5009, "27009/udp", 1809]
  seq_timeout = "25s"
  window      = "20s"
}
