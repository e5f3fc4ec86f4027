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
# 3. Put the rules in force, in a session that stays open. Move this file to
#    /etc/knockwall.d, and reload:
#        sudo knockwall reload
#
# 4. Try a knock. Then stop knockd, which would go on to hear the knocks and
#    to run its commands.
#        sudo systemctl disable --now knockd

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "everybody" {
  sequence    = [5001, "27001/udp", 1801]
  seq_timeout = "25s"
  window      = "20s"

  on_open {
    command = ["iptables", "-I", "INPUT", "-p", "tcp", "--dport", "22", "-j", "ACCEPT"]
  }

  on_close {
    command = ["iptables", "-D", "INPUT", "-p", "tcp", "--dport", "22", "-j", "ACCEPT"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "all-ports" {
  sequence    = [5002, "27002/udp", 1802]
  seq_timeout = "25s"

  on_open {
    command = ["iptables", "-I", "INPUT", "-s", "${source}", "-j", "ACCEPT"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "network" {
  sequence    = [5003, "27003/udp", 1803]
  seq_timeout = "25s"

  on_open {
    command = ["iptables", "-I", "INPUT", "-s", "${source}/24", "-p", "tcp", "--dport", "22", "-j", "ACCEPT"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "others" {
  sequence    = [5004, "27004/udp", 1804]
  seq_timeout = "25s"

  on_open {
    command = ["iptables", "-I", "INPUT", "!", "-s", "${source}", "-p", "tcp", "--dport", "22", "-j", "ACCEPT"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "drop" {
  sequence    = [5005, "27005/udp", 1805]
  seq_timeout = "25s"

  on_open {
    command = ["iptables", "-I", "INPUT", "-s", "${source}", "-p", "tcp", "--dport", "22", "-j", "DROP"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "forward" {
  sequence    = [5006, "27006/udp", 1806]
  seq_timeout = "25s"

  on_open {
    command = ["iptables", "-I", "FORWARD", "-s", "${source}", "-p", "tcp", "--dport", "22", "-j", "ACCEPT"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "nat" {
  sequence    = [5007, "27007/udp", 1807]
  seq_timeout = "25s"

  on_open {
    command = ["iptables", "-t", "nat", "-I", "PREROUTING", "-s", "${source}", "-p", "tcp", "--dport", "22", "-j", "DNAT", "--to-destination", "10.0.0.2"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "destination" {
  sequence    = [5008, "27008/udp", 1808]
  seq_timeout = "25s"

  on_open {
    command = ["iptables", "-I", "INPUT", "-s", "${source}", "-d", "192.0.2.1", "-p", "tcp", "--dport", "22", "-j", "ACCEPT"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "hashlimit" {
  sequence    = [5009, "27009/udp", 1809]
  seq_timeout = "25s"

  on_open {
    command = ["iptables", "-I", "INPUT", "-s", "${source}", "-p", "tcp", "--dport", "22", "-m", "hashlimit", "--hashlimit-above", "1/s", "-j", "ACCEPT"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "source-port" {
  sequence    = [5010, "27010/udp", 1810]
  seq_timeout = "25s"

  on_open {
    command = ["iptables", "-I", "INPUT", "-s", "${source}", "-p", "tcp", "--sport", "22", "-j", "ACCEPT"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "bad-port" {
  sequence    = [5011, "27011/udp", 1811]
  seq_timeout = "25s"

  on_open {
    command = ["iptables", "-I", "INPUT", "-s", "${source}", "-p", "tcp", "--dport", "22,0", "-j", "ACCEPT"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "set" {
  sequence    = [5012, "27012/udp", 1812]
  seq_timeout = "25s"

  on_open {
    command = ["nft", "add", "element", "inet", "filter", "knocked", "{", "${source}", "timeout", "60s", "}"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "nft-drop" {
  sequence    = [5013, "27013/udp", 1813]
  seq_timeout = "25s"

  on_open {
    command = ["nft", "add", "rule", "inet", "filter", "input", "ip", "saddr", "${source}", "tcp", "dport", "22", "drop"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "nft-other" {
  sequence    = [5014, "27014/udp", 1814]
  seq_timeout = "25s"

  on_open {
    command = ["nft", "insert", "rule", "inet", "filter", "input", "ip", "saddr", "!=", "${source}", "tcp", "dport", "22", "accept"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "ufw-all" {
  sequence    = [5015, "27015/udp", 1815]
  seq_timeout = "25s"
  window      = "20s"

  on_open {
    command = ["ufw", "allow", "22/tcp"]
  }

  on_close {
    command = ["ufw", "delete", "allow", "22/tcp"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "ufw-from" {
  sequence    = [5016, "27016/udp", 1816]
  seq_timeout = "25s"

  on_open {
    command = ["ufw", "allow", "from", "${source}"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "ufw-source-port" {
  sequence    = [5017, "27017/udp", 1817]
  seq_timeout = "25s"

  on_open {
    command = ["ufw", "allow", "from", "${source}", "port", "22"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "ufw-source-port2" {
  sequence    = [5018, "27018/udp", 1818]
  seq_timeout = "25s"

  on_open {
    command = ["ufw", "allow", "to", "any", "from", "${source}", "port", "22"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "ufw-deny" {
  sequence    = [5019, "27019/udp", 1819]
  seq_timeout = "25s"

  on_open {
    command = ["ufw", "insert", "1", "deny", "from", "${source}", "to", "any", "port", "22"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "service" {
  sequence    = [5020, "27020/udp", 1820]
  seq_timeout = "25s"
  window      = "20s"

  on_open {
    command = ["firewall-cmd", "--zone=public", "--add-service=ssh"]
  }

  on_close {
    command = ["firewall-cmd", "--zone=public", "--remove-service=ssh"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# A shell runs this command, as under knockd. The source is in
# $KNOCKWALL_SOURCE. The sandbox of knockwall.service applies: see above. Try
# it.
door "zone" {
  sequence    = [5021, "27021/udp", 1821]
  seq_timeout = "25s"

  on_open {
    command = ["/bin/sh", "-c", "firewall-cmd --zone=trusted --add-source=$KNOCKWALL_SOURCE --permanent && firewall-cmd --reload"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "rich-drop" {
  sequence    = [5022, "27022/udp", 1822]
  seq_timeout = "25s"

  on_open {
    command = ["firewall-cmd", "--add-rich-rule=rule family=ipv4 source address=${source} port port=22 protocol=tcp reject"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "rich-not" {
  sequence    = [5023, "27023/udp", 1823]
  seq_timeout = "25s"

  on_open {
    command = ["firewall-cmd", "--add-rich-rule=rule family=ipv4 source NOT address=${source} port port=22 protocol=tcp accept"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "ipfw-all" {
  sequence    = [5024, "27024/udp", 1824]
  seq_timeout = "25s"

  on_open {
    command = ["ipfw", "-q", "add", "10", "allow", "tcp", "from", "any", "to", "any", "22"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "ipset" {
  sequence    = [5025, "27025/udp", 1825]
  seq_timeout = "25s"

  on_open {
    command = ["ipset", "add", "knocked", "${source}"]
  }
}

# It is not certain that this command opens ports to the source and does
# nothing else. So the daemon runs it as before, and the door guards no port.
# If the command does just this, write ports = [...] instead of it.
# A shell runs this command, as under knockd. The source is in
# $KNOCKWALL_SOURCE. The sandbox of knockwall.service applies: see above. Try
# it.
door "mixed" {
  sequence    = [5026, "27026/udp", 1826]
  seq_timeout = "25s"

  on_open {
    command = ["/bin/sh", "-c", "iptables -I INPUT -s $KNOCKWALL_SOURCE -p tcp --dport 22 -j ACCEPT; iptables -I INPUT -s $KNOCKWALL_SOURCE -j ACCEPT"]
  }
}

# This door runs a command and guards no port. If the command opens ports to
# the source, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "script" {
  sequence    = [5027, "27027/udp", 1827]
  seq_timeout = "25s"

  on_open {
    command = ["/usr/local/sbin/open-port", "${source}", "22"]
  }
}
