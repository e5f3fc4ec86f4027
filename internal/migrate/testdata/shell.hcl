# From shell.conf, by `knockwall import`. What remains to be done:
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
#    everybody: 53/tcp, 636/tcp, 873/tcp, 2201/tcp, 2202/tcp, 2203/tcp,
#    2204/tcp, 2205/tcp, 2206/tcp, 2207/tcp, 2208/tcp, 2209/tcp, 2210/tcp,
#    2211/tcp, 2212/tcp, 2213/tcp, 2214/tcp, 2215/tcp, 2216/tcp, 2217/tcp,
#    2218/tcp, 2219/tcp, 2220/tcp, 2213/udp. Under knockd your firewall drops
#    these ports, and knockd inserts an ACCEPT for one source before that
#    DROP. knockwall adds no rules to your firewall. Its table comes before
#    the firewall, and only refuses sources that have not knocked. Your
#    firewall still decides about what the table lets pass. As long as that
#    DROP is there, nobody gets in, with or without a knock. If you remove it
#    before the wall is up, everybody gets in. So replace it by an ACCEPT
#    while the wall is up, and save the rules. Other rules can stay. The
#    command depends on your firewall (ip6tables for IPv6):
#        iptables -I INPUT -p tcp --dport 53 -j ACCEPT
#        ufw allow 53/tcp
#        firewall-cmd --permanent --add-port=53/tcp && firewall-cmd --reload
#
# 5. Try a knock. Then stop knockd, which would go on to hear the knocks and
#    to run its commands.
#        sudo systemctl disable --now knockd

# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "checkFirst" {
  ports       = [2201]
  sequence    = [5101, "27101/udp", 1901]
  seq_timeout = "25s"
  window      = "30s"
}

# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "checkByIf" {
  ports       = [2202]
  sequence    = [5102, "27102/udp", 1902]
  seq_timeout = "25s"
  window      = "30s"
}

# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "orTrue" {
  ports       = [2203]
  sequence    = [5103, "27103/udp", 1903]
  seq_timeout = "25s"
  window      = "30s"
}

# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "background" {
  ports       = [2204]
  sequence    = [5104, "27104/udp", 1904]
  seq_timeout = "25s"
  window      = "30s"
}

# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "redirected" {
  ports       = [2205]
  sequence    = [5105, "27105/udp", 1905]
  seq_timeout = "25s"
  window      = "30s"
}

door "sudo" {
  ports       = [2206]
  sequence    = [5106, "27106/udp", 1906]
  seq_timeout = "25s"
  window      = "10s"
}

# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "timeout" {
  ports       = [2207]
  sequence    = [5107, "27107/udp", 1907]
  seq_timeout = "25s"
  window      = "30s"
}

# The sandbox of knockwall.service applies: see above. Try it.
# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "sh" {
  ports       = [2208]
  sequence    = [5108, "27108/udp", 1908]
  seq_timeout = "25s"
  window      = "30s"

  on_open {
    command = ["logger", "-t", "knock", "open for ${source}"]
  }
}

# A shell runs this command, as under knockd. The source is in
# $KNOCKWALL_SOURCE. The sandbox of knockwall.service applies: see above. Try
# it.
door "logged" {
  ports       = [2209]
  sequence    = [5109, "27109/udp", 1909]
  seq_timeout = "25s"
  window      = "10s"

  on_open {
    command = ["/bin/sh", "-c", "touch /run/knock/$KNOCKWALL_SOURCE; echo \"$(date) $KNOCKWALL_SOURCE\" >> /var/log/knock.log"]
  }

  on_close {
    command = ["rm", "-f", "/run/knock/${source}"]
  }
}

# The command also let the answers out. Your firewall has to do that for
# everybody, as by: iptables -I OUTPUT -m conntrack --ctstate ESTABLISHED -j
# ACCEPT
# The close_sequence was the door [pairShut].
# knockd left this door open until it was closed by a knock. Here it closes
# after 30s. Connections stay when it closes. For later connections, make the
# window longer.
door "pair" {
  ports          = [2210]
  sequence       = [5110, "27110/udp", 1910]
  seq_timeout    = "25s"
  window         = "30s"
  close_sequence = [5111, "27111/udp", 1911]
}

# The command sends the source's packets to your chain LOG_ACCEPT. It is
# assumed that this chain accepts them.
# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "chain" {
  ports       = [2211]
  sequence    = [5112, "27112/udp", 1912]
  seq_timeout = "25s"
  window      = "30s"
}

# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "names" {
  ports       = [53, 636, 873]
  sequence    = [5113, "27113/udp", 1913]
  seq_timeout = "25s"
  window      = "30s"
}

door "several" {
  ports       = [2212, 2213, "2213/udp"]
  sequence    = [5114, "27114/udp", 1914]
  seq_timeout = "25s"
  window      = "10s"
}

# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "loop" {
  ports       = [2214, 2215]
  sequence    = [5115, "27115/udp", 1915]
  seq_timeout = "25s"
  window      = "30s"
}

# A shell runs this command, as under knockd. The source is in
# $KNOCKWALL_SOURCE. The sandbox of knockwall.service applies: see above. Try
# it.
# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "variable" {
  ports       = [2216]
  sequence    = [5116, "27116/udp", 1916]
  seq_timeout = "25s"
  window      = "30s"

  on_open {
    command = ["/bin/sh", "-c", "IP=$KNOCKWALL_SOURCE; PORT=2216; logger \"$IP at $PORT\""]
  }
}

# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "family" {
  ports       = [2217]
  sequence    = [5117, "27117/udp", 1917]
  seq_timeout = "25s"
  window      = "30s"
}

# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "logRule" {
  ports       = [2218]
  sequence    = [5118, "27118/udp", 1918]
  seq_timeout = "25s"
  window      = "30s"
}

# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "stdin" {
  ports       = [2219]
  sequence    = [5119, "27119/udp", 1919]
  seq_timeout = "25s"
  window      = "30s"
}

# The sandbox of knockwall.service applies: see above. Try it.
# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "sudoOther" {
  ports       = [2220]
  sequence    = [5120, "27120/udp", 1920]
  seq_timeout = "25s"
  window      = "30s"

  on_open {
    command = ["/usr/local/sbin/notify", "${source}"]
  }
}
