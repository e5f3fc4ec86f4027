# From every-port-by-others.conf, by `knockwall import`. What remains to be
# done:
#
# 1. Read this file. Comments above each door say what is different from
#    before. Then check it:
#        knockwall check --config THIS-FILE
#
# 2. Put the rules in force, in a session that stays open. If this file is not
#    in /etc/knockwall.d, move it there. The former rules return unless you
#    confirm the new ones in time, from a new connection:
#        sudo knockwall reload --confirm 2m
#        sudo knockwall confirm
#
# 3. Then, and not before, let your firewall accept, from everybody, the ports
#    that you leave in the doors. knockwall adds no rules to your firewall:
#    what it drops stays dropped, with or without a knock.
#
# 4. Try a knock. Then stop knockd, which would go on to hear the knocks and
#    to run its commands.
#        sudo systemctl disable --now knockd

# The command opened every port, so this door guards every port, also those
# that everybody reaches today, such as those of a web server. Leave these
# out: write into "ports" only what is to be hidden, and let your firewall
# accept just that. The knocks are left out already, and 68/udp and 546/udp,
# as DHCP needs them.
door "ufw" {
  ports       = ["1-1900/tcp", "1907-5100/tcp", "5107-65535/tcp", "1-67/udp", "69-545/udp", "547-27100/udp", "27107-65535/udp"]
  sequence    = [5101, "27101/udp", 1901]
  seq_timeout = "25s"
  window      = "1m"
}

# The command opened every port, so this door guards every port, also those
# that everybody reaches today, such as those of a web server. Leave these
# out: write into "ports" only what is to be hidden, and let your firewall
# accept just that. The knocks are left out already, and 68/udp and 546/udp,
# as DHCP needs them.
# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "tcp" {
  ports       = ["1-1900/tcp", "1907-5100/tcp", "5107-65535/tcp"]
  sequence    = [5102, "27102/udp", 1902]
  seq_timeout = "25s"
  window      = "30s"
}

# The command opened every port, so this door guards every port, also those
# that everybody reaches today, such as those of a web server. Leave these
# out: write into "ports" only what is to be hidden, and let your firewall
# accept just that. The knocks are left out already, and 68/udp and 546/udp,
# as DHCP needs them.
# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "trusted" {
  ports       = ["1-1900/tcp", "1907-5100/tcp", "5107-65535/tcp", "1-67/udp", "69-545/udp", "547-27100/udp", "27107-65535/udp"]
  sequence    = [5103, "27103/udp", 1903]
  seq_timeout = "25s"
  window      = "30s"
}

# The command opened every port, so this door guards every port, also those
# that everybody reaches today, such as those of a web server. Leave these
# out: write into "ports" only what is to be hidden, and let your firewall
# accept just that. The knocks are left out already, and 68/udp and 546/udp,
# as DHCP needs them.
# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "rich" {
  ports       = ["1-1900/tcp", "1907-5100/tcp", "5107-65535/tcp", "1-67/udp", "69-545/udp", "547-27100/udp", "27107-65535/udp"]
  sequence    = [5104, "27104/udp", 1904]
  seq_timeout = "25s"
  window      = "30s"
}

# The command opened these ports to everybody as soon as one source had
# knocked. Here they open to this source only.
# The command changed the policy of the chain INPUT, for every port that no
# rule names.
# The command opened every port, so this door guards every port, also those
# that everybody reaches today, such as those of a web server. Leave these
# out: write into "ports" only what is to be hidden, and let your firewall
# accept just that. The knocks are left out already, and 68/udp and 546/udp,
# as DHCP needs them.
# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "policy" {
  ports       = ["1-1900/tcp", "1907-5100/tcp", "5107-65535/tcp", "1-67/udp", "69-545/udp", "547-27100/udp", "27107-65535/udp"]
  sequence    = [5105, "27105/udp", 1905]
  seq_timeout = "25s"
  window      = "30s"
}

# The command opened every port, so this door guards every port, also those
# that everybody reaches today, such as those of a web server. Leave these
# out: write into "ports" only what is to be hidden, and let your firewall
# accept just that. The knocks are left out already, and 68/udp and 546/udp,
# as DHCP needs them.
door "csf" {
  ports       = ["1-1900/tcp", "1907-5100/tcp", "5107-65535/tcp", "1-67/udp", "69-545/udp", "547-27100/udp", "27107-65535/udp"]
  sequence    = [5106, "27106/udp", 1906]
  seq_timeout = "25s"
  window      = "1h"
}
