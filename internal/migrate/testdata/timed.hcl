# From timed.conf, by `knockwall import`. What remains to be done:
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
#    everybody: 2201/tcp, 2202/tcp, 2203/tcp, 2204/tcp, 2205/tcp, 2206/tcp,
#    2207/tcp, 2208/tcp, 2210/tcp. Under knockd your firewall drops these
#    ports, and knockd inserts an ACCEPT for one source before that DROP.
#    knockwall adds no rules to your firewall. Its table comes before the
#    firewall, and only refuses sources that have not knocked. Your firewall
#    still decides about what the table lets pass. As long as that DROP is
#    there, nobody gets in, with or without a knock. If you remove it before
#    the wall is up, everybody gets in. So replace it by an ACCEPT while the
#    wall is up, and save the rules. Other rules can stay. The command depends
#    on your firewall (ip6tables for IPv6):
#        iptables -I INPUT -p tcp --dport 2201 -j ACCEPT
#        ufw allow 2201/tcp
#        firewall-cmd --permanent --add-port=2201/tcp && firewall-cmd --reload
#
# 6. Try a knock. Then stop knockd, which would go on to hear the knocks and
#    to run its commands.
#        sudo systemctl disable --now knockd

door "sleep" {
  ports       = [2201]
  sequence    = [5101, "27101/udp", 1901]
  seq_timeout = "25s"
  window      = "40s"
}

# The sandbox of knockwall.service applies: see above. Try it.
door "inLine" {
  ports       = [2202]
  sequence    = [5102, "27102/udp", 1902]
  seq_timeout = "25s"
  window      = "1m30s"

  on_open {
    command = ["logger", "open", "for", "${source}"]
  }

  on_close {
    command = ["logger", "shut", "for", "${source}"]
  }
}

door "nohup" {
  ports       = [2203]
  sequence    = [5103, "27103/udp", 1903]
  seq_timeout = "25s"
  window      = "20s"
}

door "at" {
  ports       = [2204]
  sequence    = [5104, "27104/udp", 1904]
  seq_timeout = "25s"
  window      = "5m"
}

door "atHere" {
  ports       = [2205]
  sequence    = [5105, "27105/udp", 1905]
  seq_timeout = "25s"
  window      = "1h"
}

door "systemd" {
  ports       = [2206]
  sequence    = [5106, "27106/udp", 1906]
  seq_timeout = "25s"
  window      = "1m30s"
}

# knockd did nothing after this Cmd_Timeout, as there is no Stop_Command. Here
# the door closes after it. Connections stay when it closes.
door "cmdTimeoutAlone" {
  ports       = [2207]
  sequence    = [5107, "27107/udp", 1907]
  seq_timeout = "25s"
  window      = "45s"
}

door "both" {
  ports       = [2208]
  sequence    = [5108, "27108/udp", 1908]
  seq_timeout = "25s"
  window      = "25s"
}

# [atNoon], line 36
# This command opens ports, but a door cannot do the same for certain: it
# waits for a time of day.
# The daemon cannot run it: at needs root, and the service's user cannot
# become root. So complete this door, with your ports, and remove the # before
# it:
# door "atNoon" {
#   ports       = [2209]
#   sequence    = [5109, "27109/udp", 1909]
#   seq_timeout = "25s"
#   window      = "30s"
# }

door "long" {
  ports       = [2210]
  sequence    = [5110, "27110/udp", 1910]
  seq_timeout = "25s"
  window      = "24h"
}
