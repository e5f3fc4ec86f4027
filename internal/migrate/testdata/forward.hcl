# From forward.conf, by `knockwall import`. What remains to be done:
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
#    everybody: 3389/tcp, 8443/tcp, 51820/udp. Under knockd your firewall
#    drops these ports, and knockd inserts an ACCEPT for one source before
#    that DROP. knockwall adds no rules to your firewall. Its table comes
#    before the firewall, and only refuses sources that have not knocked. Your
#    firewall still decides about what the table lets pass. As long as that
#    DROP is there, nobody gets in, with or without a knock. If you remove it
#    before the wall is up, everybody gets in. So replace it by an ACCEPT
#    while the wall is up, and save the rules. Other rules can stay. The
#    command depends on your firewall (ip6tables for IPv6):
#        iptables -I FORWARD -d 10.0.0.5 -p tcp --dport 3389 -j ACCEPT
#
# 5. Try a knock. Then stop knockd, which would go on to hear the knocks and
#    to run its commands.
#        sudo systemctl disable --now knockd

# This door guards 10.0.0.5 behind this host, so clients knock at that
# address. If they reach it by an address of this host (port forwarding),
# remove "to", and write the port that they connect to: the wall stands before
# the translation.
# The close_sequence was the door [innerShut].
# knockd left this door open until it was closed by a knock. Here it closes
# after 30s. Connections stay when it closes. For later connections, make the
# window longer.
door "inner" {
  ports          = [3389]
  sequence       = [5101, "27101/udp", 1901]
  seq_timeout    = "25s"
  window         = "30s"
  close_sequence = [5102, "27102/udp", 1902]
  to             = ["10.0.0.5"]
}

# This door guards 10.0.0.6 behind this host, so clients knock at that
# address. If they reach it by an address of this host (port forwarding),
# remove "to", and write the port that they connect to: the wall stands before
# the translation.
door "route" {
  ports       = [8443]
  sequence    = [5103, "27103/udp", 1903]
  seq_timeout = "25s"
  window      = "10s"
  to          = ["10.0.0.6"]
}

# This door guards 10.0.0.7 behind this host, so clients knock at that
# address. If they reach it by an address of this host (port forwarding),
# remove "to", and write the port that they connect to: the wall stands before
# the translation.
# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "nft" {
  ports       = ["51820/udp"]
  sequence    = [5104, "27104/udp", 1904]
  seq_timeout = "25s"
  window      = "30s"
  to          = ["10.0.0.7"]
}

# This command opens ports, but a door cannot do the same for certain: it lets
# packets through to other hosts and does not say which, and a door needs
# their addresses: to = ["192.0.2.1"].
# So the daemon runs the command as before, and the door guards no port. To
# let the wall guard the ports, write them instead of on_open and on_close,
# and let your firewall accept them from everybody: ports = [25]
# The sandbox of knockwall.service applies: see above. Try it.
door "anyHost" {
  sequence    = [5105, "27105/udp", 1905]
  seq_timeout = "25s"
  window      = "30s"

  on_open {
    command = ["iptables", "-I", "FORWARD", "-s", "${source}", "-p", "tcp", "--dport", "25", "-j", "ACCEPT"]
  }
}

# This command opens ports, but a door cannot do the same for certain: the
# chain DOCKER-USER sees the port inside the container, and a door guards the
# port that Docker publishes.
# So the daemon runs the command as before, and the door guards no port. To
# let the wall guard the ports, write them instead of on_open and on_close,
# and let your firewall accept them from everybody: ports = [80]
# The sandbox of knockwall.service applies: see above. Try it.
door "container" {
  sequence    = [5106, "27106/udp", 1906]
  seq_timeout = "25s"
  window      = "30s"

  on_open {
    command = ["iptables", "-I", "DOCKER-USER", "-s", "${source}", "-p", "tcp", "--dport", "80", "-j", "ACCEPT"]
  }
}
