# From twins.conf, by `knockwall import`. What remains to be done:
#
# 1. Read this file. Comments above each door say what is different from
#    before. Then check it:
#        knockwall check --config THIS-FILE
#
# 2. knockd ran its commands as root. The daemon runs them in the sandbox of
#    knockwall.service: as the service's user, who cannot become root by sudo,
#    without a network, and with /var/lib/knockwall as the only permanent
#    folder that they can write to. If a command needs more, let another
#    systemd unit run it: /usr/share/doc/knockwall/examples/commands.hcl shows
#    how.
#
# 3. Put the rules in force, in a session that stays open. If this file is not
#    in /etc/knockwall.d, move it there. The former rules return unless you
#    confirm the new ones in time, from a new connection:
#        sudo knockwall reload --confirm 2m
#        sudo knockwall confirm
#
# 4. Then, and not before, let your firewall accept these ports, from
#    everybody: 22/tcp, 25/tcp, 26/tcp, 80/tcp, 443/tcp. Under knockd your
#    firewall drops these ports, and knockd inserts an ACCEPT for one source
#    before that DROP. knockwall adds no rules to your firewall. Its table
#    comes before the firewall, and only refuses sources that have not
#    knocked. Your firewall still decides about what the table lets pass. As
#    long as that DROP is there, nobody gets in, with or without a knock. If
#    you remove it before the wall is up, everybody gets in. So replace it by
#    an ACCEPT while the wall is up, and save the rules. Other rules can stay.
#    The command depends on your firewall (ip6tables for IPv6):
#        iptables -I INPUT -p tcp --dport 22 -j ACCEPT
#        ufw allow 22/tcp
#        firewall-cmd --permanent --add-port=22/tcp && firewall-cmd --reload
#
# 5. Try a knock. Then stop knockd, which would go on to hear the knocks and
#    to run its commands.
#        sudo systemctl disable --now knockd

# The close_sequence was the door [closeAorB].
# knockd left this door open until it was closed by a knock. Here it closes
# after 30s. Connections stay when it closes. For later connections, make the
# window longer.
door "openA" {
  ports          = [22]
  sequence       = [5001, "27001/udp", 1801]
  seq_timeout    = "25s"
  window         = "30s"
  close_sequence = [1, 2, 3]
}

# The close_sequence was the door [closeB].
# That door had its own Seq_Timeout or TCPFlags. Here both sequences have the
# same.
# Its command does not run any more: ufw delete allow from %IP% to any port 22
# proto tcp; logger closed
# knockd left this door open until it was closed by a knock. Here it closes
# after 30s. Connections stay when it closes. For later connections, make the
# window longer.
door "openB" {
  ports          = [22]
  sequence       = [5002, "27002/udp", 1802]
  seq_timeout    = "25s"
  window         = "30s"
  close_sequence = [1802, "27002/udp", 5002]
}

# [closeAorB], line 14
# This door closed [openB] (line 5) by the knocks [1, 2, 3]. Another door
# closes that already, and a door has one close_sequence.

# The close_sequence was the door [closeC].
# Its command does not run any more: iptables -D INPUT -s %IP% -p tcp --dport
# 80 -j ACCEPT
# knockd left this door open until it was closed by a knock. Here it closes
# after 30s. Connections stay when it closes. For later connections, make the
# window longer.
door "openC" {
  ports          = [80, 443]
  sequence       = [5003, "27003/udp", 1803]
  seq_timeout    = "25s"
  window         = "30s"
  close_sequence = [6003, "28003/udp", 2803]
}

# [closeCagain], line 26
# This door closed [openC] (line 18) by the knocks [6004, "28004/udp", 2804].
# Another door closes that already, and a door has one close_sequence.

# This door closes ports that no other door here opens, so it still runs its
# command.
# The sandbox of knockwall.service applies: see above. Try it.
door "closeNothing" {
  sequence    = [6005, "28005/udp", 2805]
  seq_timeout = "25s"

  on_open {
    command = ["iptables", "-D", "INPUT", "-s", "${source}", "-p", "tcp", "--dport", "8080", "-j", "ACCEPT"]
  }
}

# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "openD" {
  ports       = [25]
  sequence    = [5006, "27006/udp", 1806]
  seq_timeout = "25s"
  window      = "30s"
}

# [closeD], line 38
# This door closed [openD] (line 34) by the same knocks that open that. Choose
# other knocks for its close_sequence.

# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "openE" {
  ports       = [26]
  sequence    = [5007, "27007/udp", 1807]
  seq_timeout = "25s"
  window      = "30s"
}

# [closeE], line 46
# This door closed [openE] (line 42) by one-time sequences, which cannot close
# a door. Write a close_sequence for that door, or let its window end.
