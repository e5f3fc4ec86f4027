# From spelling.conf, by `knockwall import`. What remains to be done:
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
#    everybody: 22/tcp, 2201/tcp, 2202/tcp, 2203/tcp, 2204/tcp, 2206/tcp,
#    2207/tcp, 2208/tcp, 2209/tcp, 2210/tcp, 2211/tcp, 2212/tcp, 2213/tcp,
#    2214/tcp. Under knockd your firewall drops these ports, and knockd
#    inserts an ACCEPT for one source before that DROP. knockwall adds no
#    rules to your firewall. Its table comes before the firewall, and only
#    refuses sources that have not knocked. Your firewall still decides about
#    what the table lets pass. As long as that DROP is there, nobody gets in,
#    with or without a knock. If you remove it before the wall is up,
#    everybody gets in. So replace it by an ACCEPT while the wall is up, and
#    save the rules. Other rules can stay. The command depends on your
#    firewall (ip6tables for IPv6):
#        iptables -I INPUT -p tcp --dport 22 -j ACCEPT
#        ufw allow 22/tcp
#        firewall-cmd --permanent --add-port=22/tcp && firewall-cmd --reload
#
# 5. Try a knock. Then stop knockd, which would go on to hear the knocks and
#    to run its commands.
#        sudo systemctl disable --now knockd

# UseSyslog: knockwall logs to the journal and not to a file. Read it with:
# journalctl -u knockwall

door "attached" {
  ports       = [22]
  sequence    = [11000, 12050, 13080]
  seq_timeout = "25s"
  window      = "1m"
}

door "shortened" {
  ports       = [2201]
  sequence    = [11007, 12061, 13093]
  seq_timeout = "25s"
  window      = "1m"
}

# The command named these ports on either side (--ports). Here they are the
# ports that clients connect to.
# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "either-side" {
  ports       = [2202, 2203]
  sequence    = [11014, 12072, 13106]
  seq_timeout = "25s"
  window      = "30s"
}

# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "not-loopback" {
  ports       = [2204]
  sequence    = [11021, 12083, 13119]
  seq_timeout = "25s"
  window      = "30s"
}

# This command opens ports, but a door cannot do the same for certain: it has
# a negation (!), which a door has not.
# So the daemon runs the command as before, and the door guards no port. To
# let the wall guard the ports, write them instead of on_open and on_close,
# and let your firewall accept them from everybody: ports = [2205]
# The sandbox of knockwall.service applies: see above. Try it.
door "not-bridge" {
  sequence    = [11028, 12094, 13132]
  seq_timeout = "25s"
  window      = "30s"

  on_open {
    command = ["iptables", "-I", "INPUT", "!", "-i", "br0", "-s", "${source}", "-p", "tcp", "--dport", "2205", "-j", "ACCEPT"]
  }
}

door "published" {
  ports       = [2206]
  sequence    = [11035, 12105, 13145]
  seq_timeout = "25s"
  window      = "1m"
}

# The command sends the source's packets to the chain k-%IP%, and fills it. It
# is assumed that no other rules are in it.
door "own-chain" {
  ports       = [2207]
  sequence    = [11042, 12116, 13158]
  seq_timeout = "25s"
  window      = "1m"
}

# The command also saved the rules of the firewall, which is left out: a
# window is none of them.
door "saved" {
  ports       = [2208]
  sequence    = [11049, 12127, 13171]
  seq_timeout = "25s"
  window      = "1m"
}

# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "here-string" {
  ports       = [2209]
  sequence    = [11056, 12138, 13184]
  seq_timeout = "25s"
  window      = "30s"
}

# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "device" {
  ports       = [2210]
  sequence    = [11063, 12149, 13197]
  seq_timeout = "25s"
  window      = "30s"
}

# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "restore" {
  ports       = [2211]
  sequence    = [11070, 12160, 13210]
  seq_timeout = "25s"
  window      = "30s"
}

door "repeated" {
  ports       = [2212]
  sequence    = [11077, 12171, 13223]
  seq_timeout = "25s"
  window      = "1m"
}

door "own-address" {
  ports       = [2213]
  sequence    = [11084, 12182, 13236]
  seq_timeout = "25s"
  window      = "1m"
}

door "sets" {
  ports       = [2214]
  sequence    = [11091, 12193, 13249]
  seq_timeout = "25s"
  window      = "1m"
}

# [grouped], line 76
# This command changes the firewall, and it is not certain that it opens ports
# to the source (it reads its rules from another program). The daemon cannot
# run it: pfctl does not exist on Linux. If it opens ports, complete this
# door, with your ports, and remove the # before it:
# door "grouped" {
#   ports       = [22]
#   sequence    = [11098, 12204, 13262]
#   seq_timeout = "25s"
#   window      = "30s"
# }
