# From iptables.conf, by `knockwall import`. What remains to be done:
#
# 1. Read it: what is not as it was is said above each door. Then let it be
#    read:
#        knockwall check --config THIS-FILE
#
# 2. Put it in force, in a session that stays open: move it into
#    /etc/knockwall.d, and
#        sudo knockwall reload
#
# 3. Then, and not before, let your firewall accept these ports, from
#    everybody: 22/tcp, 23/tcp, 53/tcp, 80/tcp, 443/tcp, 1000-1010/tcp,
#    60000-65535/tcp, 53/udp, 51820/udp. Under knockd your firewall drops
#    these ports for everybody, and knockd put an ACCEPT for the one source
#    before that DROP. knockwall puts nothing into your firewall. It stands
#    before it, and only holds back who has not knocked; what it lets pass,
#    your firewall still judges. As long as that DROP is there, nobody gets
#    in, knock or no knock. If it goes before the wall is up, everybody does.
#    So, with the wall up, put an ACCEPT in its place, and save it. Other
#    rules may stay as they are. Depending on what your firewall is made with
#    (ip6tables for IPv6):
#        iptables -I INPUT -p tcp --dport 22 -j ACCEPT
#        ufw allow 22/tcp
#        firewall-cmd --permanent --add-port=22/tcp && firewall-cmd --reload
#
# 4. Try a knock. Then stop knockd: both hear the knocks, and knockd goes on
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

# Its Stop_Command changes the firewall and is left out, as nothing is put
# into it any more: sudo /sbin/iptables -F
door "conntrack" {
  ports       = [443]
  sequence    = [5004, "27004/udp", 1804]
  seq_timeout = "25s"
  window      = "20s"
}

# The command named the interface eth0, so the door stands there only. On
# others your firewall decides alone: what it accepts there, anybody can
# reach.
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

# knockd left it open for ever; here it closes after 30s, and what is
# connected by then stays. For connections that begin later, make the window
# longer.
door "open-ended" {
  ports       = ["60000-65535/tcp"]
  sequence    = [5009, "27009/udp", 1809]
  seq_timeout = "25s"
  window      = "30s"
}
