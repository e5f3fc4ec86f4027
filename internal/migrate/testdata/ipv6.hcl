# From ipv6.conf, by `knockwall import`. What remains to be done:
#
# 1. Read it: what is not as it was is said above each door. Then let it be
#    read:
#        knockwall check --config THIS-FILE
#
# 2. knockd ran its commands as root. Here they are run in the sandbox of
#    knockwall.service: as its user, whom no sudo makes root, without a
#    network, and with no folder that lasts to write to but
#    /var/lib/knockwall. What needs more is for another unit to do:
#    /usr/share/doc/knockwall/examples/commands.hcl shows how.
#
# 3. Put it in force, in a session that stays open: move it into
#    /etc/knockwall.d, and
#        sudo knockwall reload
#
# 4. Then, and not before, let your firewall accept these ports, from
#    everybody: 22/tcp, 2222/tcp. Under knockd your firewall drops these ports
#    for everybody, and knockd put an ACCEPT for the one source before that
#    DROP. knockwall puts nothing into your firewall. It stands before it, and
#    only holds back who has not knocked; what it lets pass, your firewall
#    still judges. As long as that DROP is there, nobody gets in, knock or no
#    knock. If it goes before the wall is up, everybody does. So, with the
#    wall up, put an ACCEPT in its place, and save it. Other rules may stay as
#    they are. Depending on what your firewall is made with (ip6tables for
#    IPv6):
#        iptables -I INPUT -p tcp --dport 22 -j ACCEPT
#        ufw allow 22/tcp
#        firewall-cmd --permanent --add-port=22/tcp && firewall-cmd --reload
#
# 5. Try a knock. Then stop knockd: both hear the knocks, and knockd goes on
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

# knockd opened other ports to sources of IPv4 than to those of IPv6; here,
# all of them open to both.
door "different" {
  ports       = [22, 2222]
  sequence    = [5003, "27003/udp", 1803]
  seq_timeout = "25s"
  window      = "10s"
}

# knockd did nothing for a source of IPv6; here, one that knocks is let in,
# too. To keep IPv6 out, list this host's IPv4 addresses in "to".
# knockd left it open for ever; here it closes after 30s, and what is
# connected by then stays. For connections that begin later, make the window
# longer.
door "only4" {
  ports       = [22]
  sequence    = [5004, "27004/udp", 1804]
  seq_timeout = "25s"
  window      = "30s"
}

# knockd did nothing for a source of IPv4; here, one that knocks is let in,
# too.
# knockd left it open for ever; here it closes after 30s, and what is
# connected by then stays. For connections that begin later, make the window
# longer.
door "only6" {
  ports       = [22]
  sequence    = [5005, "27005/udp", 1805]
  seq_timeout = "25s"
  window      = "30s"
}

# It is not clear that this command opens some ports to the one source, and
# does nothing else. So it is run as before, and no port is guarded here. If
# that is what it does, write ports = [...] instead of it.
# A shell runs this command, as it did under knockd; the source is in
# $KNOCKWALL_SOURCE. The sandbox of knockwall.service applies: see above. Try
# it.
door "unknown6" {
  sequence    = [5006, "27006/udp", 1806]
  seq_timeout = "25s"

  on_open {
    command = ["/bin/sh", "-c", "case \"$KNOCKWALL_SOURCE\" in\n*:*)\nip6tables -I INPUT -s $KNOCKWALL_SOURCE -j ACCEPT\n;;\n*)\niptables -I INPUT -s $KNOCKWALL_SOURCE -p tcp --dport 22 -j ACCEPT  # for IPv4\n;;\nesac"]
  }
}
