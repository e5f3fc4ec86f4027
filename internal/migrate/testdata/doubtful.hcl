# From doubtful.conf, by `knockwall import`. What remains to be done:
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
# 3. knockd ran its commands as root. The daemon runs them in the sandbox of
#    knockwall.service: as the service's user, who cannot become root by sudo,
#    without a network, and with /var/lib/knockwall as the only permanent
#    folder that they can write to. If a command needs more, let another
#    systemd unit run it: /usr/share/doc/knockwall/examples/commands.hcl shows
#    how.
#
# 4. Put the rules in force, in a session that stays open. If this file is not
#    in /etc/knockwall.d, move it there. The former rules return unless you
#    confirm the new ones in time, from a new connection:
#        sudo knockwall reload --confirm 2m
#        sudo knockwall confirm
#
# 5. Then, and not before, let your firewall accept these ports, from
#    everybody: 2205/tcp, 2207/tcp. Under knockd your firewall drops these
#    ports, and knockd inserts an ACCEPT for one source before that DROP.
#    knockwall adds no rules to your firewall. Its table comes before the
#    firewall, and only refuses sources that have not knocked. Your firewall
#    still decides about what the table lets pass. As long as that DROP is
#    there, nobody gets in, with or without a knock. If you remove it before
#    the wall is up, everybody gets in. So replace it by an ACCEPT while the
#    wall is up, and save the rules. Other rules can stay. The command depends
#    on your firewall (ip6tables for IPv6):
#        iptables -I INPUT -p tcp --dport 2205 -j ACCEPT
#        ufw allow 2205/tcp
#        firewall-cmd --permanent --add-port=2205/tcp && firewall-cmd --reload
#
# 6. Try a knock. Then stop knockd, which would go on to hear the knocks and
#    to run its commands.
#        sudo systemctl disable --now knockd

# This command opens ports, but a door cannot do the same for certain: it has
# the match geoip, which a door has not.
# So the daemon runs the command as before, and the door guards no port. To
# let the wall guard the ports, write them instead of on_open and on_close,
# and let your firewall accept them from everybody: ports = [2201]
# The sandbox of knockwall.service applies: see above. Try it.
door "geoip" {
  sequence    = [5101, "27101/udp", 1901]
  seq_timeout = "25s"
  window      = "30s"

  on_open {
    command = ["iptables", "-I", "INPUT", "-s", "${source}", "-p", "tcp", "--dport", "2201", "-m", "geoip", "--src-cc", "DE", "-j", "ACCEPT"]
  }
}

# This command opens ports, but a door cannot do the same for certain: its
# arguments come from the shell.
# So the daemon runs the command as before, and the door guards no port. To
# let the wall guard the ports, write them instead of on_open and on_close,
# and let your firewall accept them from everybody: ports = [22], with your
# own ports
# A shell runs this command, as under knockd. The source is in
# $KNOCKWALL_SOURCE. The sandbox of knockwall.service applies: see above. Try
# it.
door "substituted" {
  sequence    = [5102, "27102/udp", 1902]
  seq_timeout = "25s"
  window      = "30s"

  on_open {
    command = ["/bin/sh", "-c", "iptables -I INPUT -s $KNOCKWALL_SOURCE -p tcp --dport $(cat /etc/port) -j ACCEPT"]
  }
}

# This command opens ports, but a door cannot do the same for certain: it lets
# in the whole prefix %IP%/24, which a door does by: source_prefix = { ipv4 =
# 24 }.
# So the daemon runs the command as before, and the door guards no port. To
# let the wall guard the ports, write them instead of on_open and on_close,
# and let your firewall accept them from everybody: ports = [2202]
# The sandbox of knockwall.service applies: see above. Try it.
door "prefix" {
  sequence    = [5103, "27103/udp", 1903]
  seq_timeout = "25s"
  window      = "30s"

  on_open {
    command = ["iptables", "-I", "INPUT", "-s", "${source}/24", "-p", "tcp", "--dport", "2202", "-j", "ACCEPT"]
  }
}

# [another], line 13
# This command opens ports, but a door cannot do the same for certain: it
# names the source 198.51.100.7 and not the one that knocked.
# The daemon cannot run it: ufw needs root, and the service's user cannot
# become root. So complete this door, with your ports, and remove the # before
# it:
# door "another" {
#   ports       = [2203]
#   sequence    = [5104, "27104/udp", 1904]
#   seq_timeout = "25s"
#   window      = "30s"
# }

# [off], line 17
# This command opens ports, but a door cannot do the same for certain: it
# switched the whole firewall off.
# The daemon cannot run it: ufw needs root, and the service's user cannot
# become root. So complete this door, with your ports, and remove the # before
# it:
# door "off" {
#   ports       = ["1-1900/tcp", 1913, "1915-5100/tcp", 5113, "5115-65535/tcp", "1-67/udp", "69-545/udp", "547-27100/udp", "27113/udp", "27115-65535/udp"]
#   sequence    = [5105, "27105/udp", 1905]
#   seq_timeout = "25s"
#   window      = "10s"
# }

# This command changes the firewall, and it is not certain that it opens ports
# to the source (its rules are in a file that is not read here). So the daemon
# runs it as before, and the door guards no port. If it does open ports, write
# them instead of the command: ports = [22], with your own ports
# A shell runs this command, as under knockd. The source is in
# $KNOCKWALL_SOURCE. The sandbox of knockwall.service applies: see above. Try
# it.
door "restore" {
  sequence    = [5106, "27106/udp", 1906]
  seq_timeout = "25s"

  on_open {
    command = ["/bin/sh", "-c", "iptables-restore < /etc/iptables/open.rules"]
  }
}

# [profile], line 26
# This command opens ports, but a door cannot do the same for certain: it
# names the application "MyApp", whose ports `ufw app info` shows.
# The daemon cannot run it: ufw needs root, and the service's user cannot
# become root. So complete this door, with your ports, and remove the # before
# it:
# door "profile" {
#   ports       = [22]
#   sequence    = [5107, "27107/udp", 1907]
#   seq_timeout = "25s"
#   window      = "30s"
# }

# This command changes the firewall, and it is not certain that it opens ports
# to the source (it is in a loop, which is not followed here). So the daemon
# runs it as before, and the door guards no port. If it does open ports, write
# them instead of the command: ports = [22], with your own ports
# A shell runs this command, as under knockd. The source is in
# $KNOCKWALL_SOURCE. The sandbox of knockwall.service applies: see above. Try
# it.
door "endless" {
  sequence    = [5108, "27108/udp", 1908]
  seq_timeout = "25s"

  on_open {
    command = ["/bin/sh", "-c", "while read port; do iptables -I INPUT -s $KNOCKWALL_SOURCE -p tcp --dport $port -j ACCEPT; done < /etc/ports"]
  }
}

# This command opens ports, but a door cannot do the same for certain: the
# protocol icmp has no ports.
# So the daemon runs the command as before, and the door guards no port. To
# let the wall guard the ports, write them instead of on_open and on_close,
# and let your firewall accept them from everybody: ports = [22], with your
# own ports
# The sandbox of knockwall.service applies: see above. Try it.
door "icmp" {
  sequence    = [5109, "27109/udp", 1909]
  seq_timeout = "25s"
  window      = "30s"

  on_open {
    command = ["iptables", "-I", "INPUT", "-s", "${source}", "-p", "icmp", "-j", "ACCEPT"]
  }
}

# This door runs a command and guards no port. If the command opens ports to
# the source, write them instead of it: ports = [22], with your own ports
# WARNING: the service cannot run this command: systemctl asks a service that
# obeys root only. /usr/share/doc/knockwall/examples/commands.hcl shows how
# another unit does it.
# The sandbox of knockwall.service applies: see above. Try it.
door "service" {
  sequence    = [5110, "27110/udp", 1910]
  seq_timeout = "25s"

  on_open {
    command = ["systemctl", "start", "ssh"]
  }
}

# [unclosed], line 42
# This command is left out, as a shell cannot run it: reached EOF without
# closing quote `"`, at column 63. Correct it in the old file, and import that
# again: iptables -I INPUT -s %IP% -p tcp --dport 2204 -j ACCEPT; echo "open

# This command is left out, as a shell cannot run it: reached EOF without
# closing quote `'`, at column 6. Correct it in the old file, and import that
# again: echo 'shut
# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "unclosedStop" {
  ports       = [2205]
  sequence    = [5112, "27112/udp", 1912]
  seq_timeout = "25s"
  window      = "30s"
}

# [relativeList], line 51
# This door is left out: "sequences.txt" is not an absolute path in UTF-8.
# Write the path of the file with the sequences, which begins with /, into the
# old file, and import that again.

door "seconds" {
  ports       = [2207]
  sequence    = [5114, "27114/udp", 1914]
  seq_timeout = "10s"
  window      = "20s"
}
