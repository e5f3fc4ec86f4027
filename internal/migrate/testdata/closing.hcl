# From closing.conf, by `knockwall import`. What remains to be done:
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
#    everybody: 2201/tcp, 2202/tcp, 2203/tcp, 2204/tcp, 2205/tcp, 2206/tcp.
#    Under knockd your firewall drops these ports, and knockd inserts an
#    ACCEPT for one source before that DROP. knockwall adds no rules to your
#    firewall. Its table comes before the firewall, and only refuses sources
#    that have not knocked. Your firewall still decides about what the table
#    lets pass. As long as that DROP is there, nobody gets in, with or without
#    a knock. If you remove it before the wall is up, everybody gets in. So
#    replace it by an ACCEPT while the wall is up, and save the rules. Other
#    rules can stay. The command depends on your firewall (ip6tables for
#    IPv6):
#        iptables -I INPUT -p tcp --dport 2201 -j ACCEPT
#        ufw allow 2201/tcp
#        firewall-cmd --permanent --add-port=2201/tcp && firewall-cmd --reload
#
# 5. Try a knock. Then stop knockd, which would go on to hear the knocks and
#    to run its commands.
#        sudo systemctl disable --now knockd

# The close_sequence was the door [shutBoth].
# knockd left this door open until it was closed by a knock. Here it closes
# after 30s. Connections stay when it closes. For later connections, make the
# window longer.
door "a" {
  ports          = [2201]
  sequence       = [5101, "27101/udp", 1901]
  seq_timeout    = "25s"
  window         = "30s"
  close_sequence = [5103, "27103/udp", 1903]
}

# The close_sequence was the door [shutBoth].
# knockd left this door open until it was closed by a knock. Here it closes
# after 30s. Connections stay when it closes. For later connections, make the
# window longer.
door "b" {
  ports          = [2201]
  sequence       = [5102, "27102/udp", 1902]
  seq_timeout    = "25s"
  window         = "30s"
  close_sequence = [5103, "27103/udp", 1903]
}

# The close_sequence was the door [rejectC].
# knockd left this door open until it was closed by a knock. Here it closes
# after 30s. Connections stay when it closes. For later connections, make the
# window longer.
door "c" {
  ports          = [2202]
  sequence       = [5104, "27104/udp", 1904]
  seq_timeout    = "25s"
  window         = "30s"
  close_sequence = [5105, "27105/udp", 1905]
}

# The close_sequence was the door [flushD].
# Its command does not run any more: iptables -F FRIENDS
# knockd left this door open until it was closed by a knock. Here it closes
# after 30s. Connections stay when it closes. For later connections, make the
# window longer.
door "d" {
  ports          = [2203]
  sequence       = [5106, "27106/udp", 1906]
  seq_timeout    = "25s"
  window         = "30s"
  close_sequence = [5107, "27107/udp", 1907]
}

# The close_sequence was the door [deleteE].
# Its command does not run any more: ipfw -q delete 720
# knockd left this door open until it was closed by a knock. Here it closes
# after 30s. Connections stay when it closes. For later connections, make the
# window longer.
door "e" {
  ports          = [2204]
  sequence       = [5108, "27108/udp", 1908]
  seq_timeout    = "25s"
  window         = "30s"
  close_sequence = [5109, "27109/udp", 1909]
}

# The close_sequence was the door [shutFandG].
# Its command does not run any more: iptables -D INPUT -s %IP% -p tcp --dport
# 2205 -j ACCEPT; ufw delete allow from %IP% to any port 2206 proto tcp
# knockd left this door open until it was closed by a knock. Here it closes
# after 30s. Connections stay when it closes. For later connections, make the
# window longer.
door "f" {
  ports          = [2205]
  sequence       = [5110, "27110/udp", 1910]
  seq_timeout    = "25s"
  window         = "30s"
  close_sequence = [5112, "27112/udp", 1912]
}

# The close_sequence was the door [shutFandG].
# Its command does not run any more: iptables -D INPUT -s %IP% -p tcp --dport
# 2205 -j ACCEPT; ufw delete allow from %IP% to any port 2206 proto tcp
# knockd left this door open until it was closed by a knock. Here it closes
# after 30s. Connections stay when it closes. For later connections, make the
# window longer.
door "g" {
  ports          = [2206]
  sequence       = [5111, "27111/udp", 1911]
  seq_timeout    = "25s"
  window         = "30s"
  close_sequence = [5112, "27112/udp", 1912]
}

# This door refuses sources, and no other door here lets them in, so it still
# runs its command.
# The sandbox of knockwall.service applies: see above. Try it.
door "ban" {
  sequence    = [5113, "27113/udp", 1913]
  seq_timeout = "25s"

  on_open {
    command = ["iptables", "-I", "INPUT", "-s", "${source}", "-p", "tcp", "--dport", "8080", "-j", "DROP"]
  }
}

# This command opens ports, but a door cannot do the same for certain: it does
# one thing or another, as it joins them by ||.
# So the daemon runs the command as before, and the door guards no port. To
# let the wall guard the ports, write them instead of on_open and on_close,
# and let your firewall accept them from everybody: ports = [2207]
# A shell runs this command, as under knockd. The source is in
# $KNOCKWALL_SOURCE. The sandbox of knockwall.service applies: see above. Try
# it.
door "toggle" {
  sequence    = [5114, "27114/udp", 1914]
  seq_timeout = "25s"
  window      = "30s"

  on_open {
    command = ["/bin/sh", "-c", "iptables -D INPUT -s $KNOCKWALL_SOURCE -p tcp --dport 2207 -j ACCEPT || iptables -I INPUT -s $KNOCKWALL_SOURCE -p tcp --dport 2207 -j ACCEPT"]
  }
}
