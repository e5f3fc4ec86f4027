# From refused.conf, by `knockwall import`. What remains to be done:
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
#    everybody: 22/tcp. Under knockd your firewall drops these ports, and
#    knockd inserts an ACCEPT for one source before that DROP. knockwall adds
#    no rules to your firewall. Its table comes before the firewall, and only
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

# The command opened these ports to everybody as soon as one source had
# knocked. Here they open to this source only.
# The close_sequence was the door [drop].
door "everybody" {
  ports          = [22]
  sequence       = [5001, "27001/udp", 1801]
  seq_timeout    = "25s"
  window         = "20s"
  close_sequence = [5005, "27005/udp", 1805]
}

# The command opened every port, so this door guards every port, also those
# that everybody reaches today, such as those of a web server. Leave these
# out: write into "ports" only what is to be hidden, and let your firewall
# accept just that. The knocks are left out already, and 68/udp and 546/udp,
# as DHCP needs them.
# knockd did nothing after this Cmd_Timeout, as there is no Stop_Command. Here
# the door closes after it. Connections stay when it closes.
door "all-ports" {
  ports       = ["1-1800/tcp", "1828-5000/tcp", "5028-65535/tcp", "1-67/udp", "69-545/udp", "547-27000/udp", "27028-65535/udp"]
  sequence    = [5002, "27002/udp", 1802]
  seq_timeout = "25s"
  window      = "20s"
}

# This command opens ports, but a door cannot do the same for certain: it lets
# in the whole prefix %IP%/24, which a door does by: source_prefix = { ipv4 =
# 24 }.
# So the daemon runs the command as before, and the door guards no port. To
# let the wall guard the ports, write them instead of on_open and on_close,
# and let your firewall accept them from everybody: ports = [22]
# The sandbox of knockwall.service applies: see above. Try it.
door "network" {
  sequence    = [5003, "27003/udp", 1803]
  seq_timeout = "25s"
  window      = "30s"

  on_open {
    command = ["iptables", "-I", "INPUT", "-s", "${source}/24", "-p", "tcp", "--dport", "22", "-j", "ACCEPT"]
  }
}

# This command opens ports, but a door cannot do the same for certain: it has
# a negation (!), which a door has not.
# So the daemon runs the command as before, and the door guards no port. To
# let the wall guard the ports, write them instead of on_open and on_close,
# and let your firewall accept them from everybody: ports = [22]
# The sandbox of knockwall.service applies: see above. Try it.
door "others" {
  sequence    = [5004, "27004/udp", 1804]
  seq_timeout = "25s"
  window      = "30s"

  on_open {
    command = ["iptables", "-I", "INPUT", "!", "-s", "${source}", "-p", "tcp", "--dport", "22", "-j", "ACCEPT"]
  }
}

# This command opens ports, but a door cannot do the same for certain: it lets
# packets through to other hosts and does not say which, and a door needs
# their addresses: to = ["192.0.2.1"].
# So the daemon runs the command as before, and the door guards no port. To
# let the wall guard the ports, write them instead of on_open and on_close,
# and let your firewall accept them from everybody: ports = [22]
# The sandbox of knockwall.service applies: see above. Try it.
door "forward" {
  sequence    = [5006, "27006/udp", 1806]
  seq_timeout = "25s"
  window      = "30s"

  on_open {
    command = ["iptables", "-I", "FORWARD", "-s", "${source}", "-p", "tcp", "--dport", "22", "-j", "ACCEPT"]
  }
}

# NAT: the command changed where the source's packets go, and knockwall
# changes no addresses and ports. So let your firewall do that for everybody,
# who cannot get past this door without a knock: iptables -t nat -A PREROUTING
# -p tcp --dport 22 -j DNAT --to-destination 10.0.0.2
# If everybody is to reach these ports as well, as those of a web server,
# guard the port behind the translation instead, and let clients connect to
# that one.
# knockd did nothing after this Cmd_Timeout, as there is no Stop_Command. Here
# the door closes after it. Connections stay when it closes.
# The close_sequence was the door [drop].
door "nat" {
  ports          = [22]
  sequence       = [5007, "27007/udp", 1807]
  seq_timeout    = "25s"
  window         = "20s"
  close_sequence = [5005, "27005/udp", 1805]
}

# knockd did nothing after this Cmd_Timeout, as there is no Stop_Command. Here
# the door closes after it. Connections stay when it closes.
door "destination" {
  ports       = [22]
  sequence    = [5008, "27008/udp", 1808]
  seq_timeout = "25s"
  window      = "20s"
  to          = ["192.0.2.1"]
}

# The limit of the match hashlimit is left out. Your firewall's own rule for
# the ports can have it.
# knockd did nothing after this Cmd_Timeout, as there is no Stop_Command. Here
# the door closes after it. Connections stay when it closes.
# The close_sequence was the door [drop].
door "hashlimit" {
  ports          = [22]
  sequence       = [5009, "27009/udp", 1809]
  seq_timeout    = "25s"
  window         = "20s"
  close_sequence = [5005, "27005/udp", 1805]
}

# This command opens ports, but a door cannot do the same for certain: it
# names the source port 22, and a door knows only addresses.
# So the daemon runs the command as before, and the door guards no port. To
# let the wall guard the ports, write them instead of on_open and on_close,
# and let your firewall accept them from everybody: ports = ["1-65535/tcp"]
# The sandbox of knockwall.service applies: see above. Try it.
door "source-port" {
  sequence    = [5010, "27010/udp", 1810]
  seq_timeout = "25s"
  window      = "30s"

  on_open {
    command = ["iptables", "-I", "INPUT", "-s", "${source}", "-p", "tcp", "--sport", "22", "-j", "ACCEPT"]
  }
}

# This command opens ports, but a door cannot do the same for certain: 22,0
# are not ports that a rule file can name.
# So the daemon runs the command as before, and the door guards no port. To
# let the wall guard the ports, write them instead of on_open and on_close,
# and let your firewall accept them from everybody: ports = [22], with your
# own ports
# The sandbox of knockwall.service applies: see above. Try it.
door "bad-port" {
  sequence    = [5011, "27011/udp", 1811]
  seq_timeout = "25s"
  window      = "30s"

  on_open {
    command = ["iptables", "-I", "INPUT", "-s", "${source}", "-p", "tcp", "--dport", "22,0", "-j", "ACCEPT"]
  }
}

# This command adds the source to the set "knocked". Which ports that opens,
# rules elsewhere say.
# So the daemon runs the command as before, and the door guards no port. To
# let the wall guard the ports, write them instead of on_open and on_close,
# and let your firewall accept them from everybody: ports = [22], with your
# own ports
# The sandbox of knockwall.service applies: see above. Try it.
door "set" {
  sequence    = [5012, "27012/udp", 1812]
  seq_timeout = "25s"
  window      = "1m"

  on_open {
    command = ["nft", "add", "element", "inet", "filter", "knocked", "{", "${source}", "timeout", "60s", "}"]
  }
}

# [nft-drop], line 62
# This door closed [everybody] (line 1), [nat] (line 32), [hashlimit] (line
# 42), [ufw-all] (line 72), [service] (line 98), [ipfw-all] (line 119) by the
# knocks [5013, "27013/udp", 1813]. Another door closes that already, and a
# door has one close_sequence.

# This command opens ports, but a door cannot do the same for certain: it has
# a negation or a comparison, which a door has not.
# So the daemon runs the command as before, and the door guards no port. To
# let the wall guard the ports, write them instead of on_open and on_close,
# and let your firewall accept them from everybody: ports = [22]
# The sandbox of knockwall.service applies: see above. Try it.
door "nft-other" {
  sequence    = [5014, "27014/udp", 1814]
  seq_timeout = "25s"
  window      = "30s"

  on_open {
    command = ["nft", "insert", "rule", "inet", "filter", "input", "ip", "saddr", "!=", "${source}", "tcp", "dport", "22", "accept"]
  }
}

# The command opened these ports to everybody as soon as one source had
# knocked. Here they open to this source only.
# The close_sequence was the door [drop].
door "ufw-all" {
  ports          = [22]
  sequence       = [5015, "27015/udp", 1815]
  seq_timeout    = "25s"
  window         = "20s"
  close_sequence = [5005, "27005/udp", 1805]
}

# The command opened every port, so this door guards every port, also those
# that everybody reaches today, such as those of a web server. Leave these
# out: write into "ports" only what is to be hidden, and let your firewall
# accept just that. The knocks are left out already, and 68/udp and 546/udp,
# as DHCP needs them.
# knockd did nothing after this Cmd_Timeout, as there is no Stop_Command. Here
# the door closes after it. Connections stay when it closes.
door "ufw-from" {
  ports       = ["1-1800/tcp", "1828-5000/tcp", "5028-65535/tcp", "1-67/udp", "69-545/udp", "547-27000/udp", "27028-65535/udp"]
  sequence    = [5016, "27016/udp", 1816]
  seq_timeout = "25s"
  window      = "20s"
}

# [ufw-source-port], line 83
# This command opens ports, but a door cannot do the same for certain: it
# names the source port 22, and a door knows only addresses.
# The daemon cannot run it: ufw needs root, and the service's user cannot
# become root. So complete this door, with your ports, and remove the # before
# it:
# door "ufw-source-port" {
#   ports       = [22, "22/udp"]
#   sequence    = [5017, "27017/udp", 1817]
#   seq_timeout = "25s"
#   window      = "30s"
# }

# [ufw-source-port2], line 88
# This command opens ports, but a door cannot do the same for certain: it
# names the source port 22, and a door knows only addresses.
# The daemon cannot run it: ufw needs root, and the service's user cannot
# become root. So complete this door, with your ports, and remove the # before
# it:
# door "ufw-source-port2" {
#   ports       = [22, "22/udp"]
#   sequence    = [5018, "27018/udp", 1818]
#   seq_timeout = "25s"
#   window      = "30s"
# }

# [ufw-deny], line 93
# This door closed [everybody] (line 1), [nat] (line 32), [hashlimit] (line
# 42), [ufw-all] (line 72), [service] (line 98), [ipfw-all] (line 119) by the
# knocks [5019, "27019/udp", 1819]. Another door closes that already, and a
# door has one close_sequence.

# The command opened these ports to everybody as soon as one source had
# knocked. Here they open to this source only.
# The close_sequence was the door [drop].
door "service" {
  ports          = [22]
  sequence       = [5020, "27020/udp", 1820]
  seq_timeout    = "25s"
  window         = "20s"
  close_sequence = [5005, "27005/udp", 1805]
}

# The command opened every port, so this door guards every port, also those
# that everybody reaches today, such as those of a web server. Leave these
# out: write into "ports" only what is to be hidden, and let your firewall
# accept just that. The knocks are left out already, and 68/udp and 546/udp,
# as DHCP needs them.
# knockd did nothing after this Cmd_Timeout, as there is no Stop_Command. Here
# the door closes after it. Connections stay when it closes.
door "zone" {
  ports       = ["1-1800/tcp", "1828-5000/tcp", "5028-65535/tcp", "1-67/udp", "69-545/udp", "547-27000/udp", "27028-65535/udp"]
  sequence    = [5021, "27021/udp", 1821]
  seq_timeout = "25s"
  window      = "20s"
}

# [rich-drop], line 109
# This door closed [everybody] (line 1), [nat] (line 32), [hashlimit] (line
# 42), [ufw-all] (line 72), [service] (line 98), [ipfw-all] (line 119) by the
# knocks [5022, "27022/udp", 1822]. Another door closes that already, and a
# door has one close_sequence.

# [rich-not], line 114
# This command opens ports, but a door cannot do the same for certain: it has
# a negation, which a door has not.
# The daemon cannot run it: firewall-cmd asks a service that obeys root only.
# So complete this door, with your ports, and remove the # before it:
# door "rich-not" {
#   ports       = [22]
#   sequence    = [5023, "27023/udp", 1823]
#   seq_timeout = "25s"
#   window      = "30s"
# }

# The command opened these ports to everybody as soon as one source had
# knocked. Here they open to this source only.
# knockd did nothing after this Cmd_Timeout, as there is no Stop_Command. Here
# the door closes after it. Connections stay when it closes.
# The close_sequence was the door [drop].
door "ipfw-all" {
  ports          = [22]
  sequence       = [5024, "27024/udp", 1824]
  seq_timeout    = "25s"
  window         = "20s"
  close_sequence = [5005, "27005/udp", 1805]
}

# This command adds the source to the set "knocked". Which ports that opens,
# rules elsewhere say.
# So the daemon runs the command as before, and the door guards no port. To
# let the wall guard the ports, write them instead of on_open and on_close,
# and let your firewall accept them from everybody: ports = [22], with your
# own ports
# The sandbox of knockwall.service applies: see above. Try it.
door "ipset" {
  sequence    = [5025, "27025/udp", 1825]
  seq_timeout = "25s"
  window      = "30s"

  on_open {
    command = ["ipset", "add", "knocked", "${source}"]
  }
}

# The command opened every port, so this door guards every port, also those
# that everybody reaches today, such as those of a web server. Leave these
# out: write into "ports" only what is to be hidden, and let your firewall
# accept just that. The knocks are left out already, and 68/udp and 546/udp,
# as DHCP needs them.
# knockd did nothing after this Cmd_Timeout, as there is no Stop_Command. Here
# the door closes after it. Connections stay when it closes.
door "mixed" {
  ports       = ["1-1800/tcp", "1828-5000/tcp", "5028-65535/tcp", "1-67/udp", "69-545/udp", "547-27000/udp", "27028-65535/udp"]
  sequence    = [5026, "27026/udp", 1826]
  seq_timeout = "25s"
  window      = "20s"
}

# This door runs a command and guards no port. If the command opens ports to
# the source, write them instead of it: ports = [22], with your own ports
# The sandbox of knockwall.service applies: see above. Try it.
door "script" {
  sequence    = [5027, "27027/udp", 1827]
  seq_timeout = "25s"

  on_open {
    command = ["/usr/local/sbin/open-port", "${source}", "22"]
  }
}
