# From twins.conf, by `knockwall import`. What remains to be done:
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
#    everybody: 22/tcp, 25/tcp, 26/tcp, 80/tcp, 443/tcp. Under knockd your
#    firewall drops these ports for everybody, and knockd put an ACCEPT for
#    the one source before that DROP. knockwall puts nothing into your
#    firewall. It stands before it, and only holds back who has not knocked;
#    what it lets pass, your firewall still judges. As long as that DROP is
#    there, nobody gets in, knock or no knock. If it goes before the wall is
#    up, everybody does. So, with the wall up, put an ACCEPT in its place, and
#    save it. Other rules may stay as they are. Depending on what your
#    firewall is made with (ip6tables for IPv6):
#        iptables -I INPUT -p tcp --dport 22 -j ACCEPT
#        ufw allow 22/tcp
#        firewall-cmd --permanent --add-port=22/tcp && firewall-cmd --reload
#
# 5. Try a knock. Then stop knockd: both hear the knocks, and knockd goes on
#    to run its commands.
#        sudo systemctl disable --now knockd

# knockd left it open for ever; here it closes after 30s, and what is
# connected by then stays. For connections that begin later, make the window
# longer.
door "openA" {
  ports       = [22]
  sequence    = [5001, "27001/udp", 1801]
  seq_timeout = "25s"
  window      = "30s"
}

# Its close_sequence was the door [closeB].
# That one had a Seq_Timeout or TCPFlags of its own; here they are the same
# for both sequences.
# Its command is not run any more: ufw delete allow from %IP% to any port 22
# proto tcp; logger closed
# knockd left it open until it was closed by a knock; here it closes after
# 30s, and what is connected by then stays. For connections that begin later,
# make the window longer.
door "openB" {
  ports          = [22]
  sequence       = [5002, "27002/udp", 1802]
  seq_timeout    = "25s"
  window         = "30s"
  close_sequence = [1802, "27002/udp", 5002]
}

# [closeAorB], line 14
# It closed what each of [openA] (line 1), [openB] (line 5) opens. Choose the
# one that is meant, and write there: close_sequence = [1, 2, 3]

# Its close_sequence was the door [closeC].
# Its command is not run any more: iptables -D INPUT -s %IP% -p tcp --dport 80
# -j ACCEPT
# knockd left it open until it was closed by a knock; here it closes after
# 30s, and what is connected by then stays. For connections that begin later,
# make the window longer.
door "openC" {
  ports          = [80, 443]
  sequence       = [5003, "27003/udp", 1803]
  seq_timeout    = "25s"
  window         = "30s"
  close_sequence = [6003, "28003/udp", 2803]
}

# [closeCagain], line 26
# It closed [openC] (line 18), which another door closes already, by the
# knocks [6004, "28004/udp", 2804]. A door has one close_sequence.

# It closes what no other door here opens, so it goes on to run its command.
# The sandbox of knockwall.service applies: see above. Try it.
door "closeNothing" {
  sequence    = [6005, "28005/udp", 2805]
  seq_timeout = "25s"

  on_open {
    command = ["iptables", "-D", "INPUT", "-s", "${source}", "-p", "tcp", "--dport", "8080", "-j", "ACCEPT"]
  }
}

# knockd left it open for ever; here it closes after 30s, and what is
# connected by then stays. For connections that begin later, make the window
# longer.
door "openD" {
  ports       = [25]
  sequence    = [5006, "27006/udp", 1806]
  seq_timeout = "25s"
  window      = "30s"
}

# [closeD], line 38
# It closed [openD] (line 34) by the same knocks that open that one. Choose
# other knocks for its close_sequence.

# knockd left it open for ever; here it closes after 30s, and what is
# connected by then stays. For connections that begin later, make the window
# longer.
door "openE" {
  ports       = [26]
  sequence    = [5007, "27007/udp", 1807]
  seq_timeout = "25s"
  window      = "30s"
}

# [closeE], line 46
# It closed [openE] (line 42) by one-time sequences, and no door is closed by
# these. Give that one a close_sequence, or let its window end.
