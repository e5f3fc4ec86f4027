# From sets.conf, by `knockwall import`. What remains to be done:
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
#    everybody: 22/tcp, 2201/tcp, 2202/tcp, 2203/udp. Under knockd your
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

# This command adds the source to the set "friends". Which ports that opens,
# rules elsewhere say.
# So the daemon runs the command as before, and the door guards no port. To
# let the wall guard the ports, write them instead of on_open and on_close,
# and let your firewall accept them from everybody: ports = [22], with your
# own ports
# The sandbox of knockwall.service applies: see above. Try it.
door "nftTimeout" {
  sequence    = [5101, "27101/udp", 1901]
  seq_timeout = "25s"
  window      = "15m"

  on_open {
    command = ["/usr/sbin/nft", "add", "element", "inet", "fw", "friends", "{", "${source}", "timeout", "15m", "}"]
  }
}

# This command adds the source to the set "inside". Which ports that opens,
# rules elsewhere say.
# So the daemon runs the command as before, and the door guards no port. To
# let the wall guard the ports, write them instead of on_open and on_close,
# and let your firewall accept them from everybody: ports = [22], with your
# own ports
# The sandbox of knockwall.service applies: see above. Try it.
door "nft" {
  sequence    = [5102, "27102/udp", 1902]
  seq_timeout = "25s"
  window      = "1m30s"

  on_open {
    command = ["/usr/sbin/nft", "add", "element", "inet", "fw", "inside", "{ ${source} }"]
  }

  on_close {
    command = ["/usr/sbin/nft", "delete", "element", "inet", "fw", "inside", "{ ${source} }"]
  }
}

door "nftWithPort" {
  ports       = [2201]
  sequence    = [5103, "27103/udp", 1903]
  seq_timeout = "25s"
  window      = "2m"
}

# This command adds the source to the set "friends". Which ports that opens,
# rules elsewhere say.
# So the daemon runs the command as before, and the door guards no port. To
# let the wall guard the ports, write them instead of on_open and on_close,
# and let your firewall accept them from everybody: ports = [22], with your
# own ports
# The sandbox of knockwall.service applies: see above. Try it.
door "ipset" {
  sequence    = [5104, "27104/udp", 1904]
  seq_timeout = "25s"
  window      = "10m"

  on_open {
    command = ["ipset", "-exist", "add", "friends", "${source}", "timeout", "600"]
  }
}

# This door takes back what [nftTimeout] (line 1), [ipset] (line 15) lets in,
# so it still runs its command.
# The sandbox of knockwall.service applies: see above. Try it.
# If you write ports there, remove this door, and write there as well:
# close_sequence = [5105, "27105/udp", 1905]
door "ipsetShut" {
  sequence    = [5105, "27105/udp", 1905]
  seq_timeout = "25s"

  on_open {
    command = ["ipset", "del", "friends", "${source}"]
  }
}

door "ipsetWithPort" {
  ports       = [2202]
  sequence    = [5106, "27106/udp", 1906]
  seq_timeout = "25s"
  window      = "5m"
}

door "ipsetWithUDP" {
  ports       = ["2203/udp"]
  sequence    = [5107, "27107/udp", 1907]
  seq_timeout = "25s"
  window      = "45s"
}

# [pf], line 33
# This command adds the source to the table "knocked" of pf. Which ports that
# opens, rules elsewhere say.
# The daemon cannot run it: pfctl does not exist on Linux. So complete this
# door, with your ports, and remove the # before it:
# door "pf" {
#   ports          = [22]
#   sequence       = [5108, "27108/udp", 1908]
#   seq_timeout    = "25s"
#   window         = "30s"
#   close_sequence = [5109, "27109/udp", 1909]
# }

# [pfShut], line 37
# This door takes back what [pf] (line 33) lets in. It is left out, as the
# daemon cannot run its command: /sbin/pfctl -q -t knocked -T delete %IP%
# If you write ports there, remove this door, and write there as well:
# close_sequence = [5109, "27109/udp", 1909]

# [recent], line 41
# This command adds the source to the list "knocked" of the match recent.
# Which ports that opens, rules elsewhere say.
# The daemon cannot run it: only root can write the file. So complete this
# door, with your ports, and remove the # before it:
# door "recent" {
#   ports          = [22]
#   sequence       = [5110, "27110/udp", 1910]
#   seq_timeout    = "25s"
#   window         = "30s"
#   close_sequence = [5111, "27111/udp", 1911]
# }

# [recentShut], line 45
# This door takes back what [recent] (line 41) lets in. It is left out, as the
# daemon cannot run its command: echo -%IP% > /proc/net/xt_recent/knocked
# If you write ports there, remove this door, and write there as well:
# close_sequence = [5111, "27111/udp", 1911]

# The command let the source in by TCP wrappers. If these are in use, they
# have to let everybody in, by this line in /etc/hosts.allow: sshd: ALL
# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "wrappers" {
  ports       = [22]
  sequence    = [5112, "27112/udp", 1912]
  seq_timeout = "25s"
  window      = "30s"
}

# [ipfw], line 53
# This command adds the source to the table "7" of ipfw. Which ports that
# opens, rules elsewhere say.
# The daemon cannot run it: ipfw does not exist on Linux. So complete this
# door, with your ports, and remove the # before it:
# door "ipfw" {
#   ports       = [22]
#   sequence    = [5113, "27113/udp", 1913]
#   seq_timeout = "25s"
#   window      = "30s"
# }

# [firewalld], line 57
# This command adds the source to the set "knocked". Which ports that opens,
# rules elsewhere say.
# The daemon cannot run it: firewall-cmd asks a service that obeys root only.
# So complete this door, with your ports, and remove the # before it:
# door "firewalld" {
#   ports       = [22]
#   sequence    = [5114, "27114/udp", 1914]
#   seq_timeout = "25s"
#   window      = "30s"
# }

# [zone], line 61
# This command adds the source to firewalld's zone "knocked". Which ports that
# opens, rules elsewhere say.
# The daemon cannot run it: firewall-cmd asks a service that obeys root only.
# So complete this door, with your ports, and remove the # before it:
# door "zone" {
#   ports       = [22]
#   sequence    = [5115, "27115/udp", 1915]
#   seq_timeout = "25s"
#   window      = "10s"
# }

# This command adds the source to the chain KNOCKED. Which ports that opens,
# rules elsewhere say.
# So the daemon runs the command as before, and the door guards no port. To
# let the wall guard the ports, write them instead of on_open and on_close,
# and let your firewall accept them from everybody: ports = [22], with your
# own ports
# The sandbox of knockwall.service applies: see above. Try it.
door "chain" {
  sequence    = [5116, "27116/udp", 1916]
  seq_timeout = "25s"
  window      = "30s"

  on_open {
    command = ["iptables", "-A", "KNOCKED", "-s", "${source}", "-j", "ACCEPT"]
  }
}

# This door takes back what [chain] (line 66) lets in, so it still runs its
# command.
# The sandbox of knockwall.service applies: see above. Try it.
# If you write ports there, remove this door, and write there as well:
# close_sequence = [5117, "27117/udp", 1917]
door "chainShut" {
  sequence    = [5117, "27117/udp", 1917]
  seq_timeout = "25s"

  on_open {
    command = ["iptables", "-F", "KNOCKED"]
  }
}
