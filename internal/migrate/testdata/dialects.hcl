# From dialects.conf, by `knockwall import`. What remains to be done:
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
# 3. Then, and not before, let your firewall accept these ports, from
#    everybody: 2201/tcp, 2202/tcp, 2203/tcp, 2205/tcp, 2206/tcp, 2207/tcp,
#    2208/tcp, 2203/udp, 2204/udp. Under knockd your firewall drops these
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
# 4. Try a knock. Then stop knockd, which would go on to hear the knocks and
#    to run its commands.
#        sudo systemctl disable --now knockd

# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "ipfwNew" {
  ports       = [2201]
  sequence    = [5101, "27101/udp", 1901]
  seq_timeout = "25s"
  window      = "30s"
}

# The command named the interface em0, so the door guards only this one. On
# other interfaces your firewall decides alone: everybody can reach what it
# accepts there.
door "ipfwOld" {
  ports       = [2202]
  sequence    = [5102, "27102/udp", 1902]
  seq_timeout = "25s"
  window      = "10s"
  interfaces  = ["em0"]
}

# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "ipfwBraces" {
  ports       = [2203, "2203/udp"]
  sequence    = [5103, "27103/udp", 1903]
  seq_timeout = "25s"
  window      = "30s"
}

# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "ipfwComment" {
  ports       = ["2204/udp"]
  sequence    = [5104, "27104/udp", 1904]
  seq_timeout = "25s"
  window      = "30s"
}

# The close_sequence was the door [pfRuleShut].
# Its command does not run any more: pfctl -a knock/ssh -F rules
# knockd left this door open until it was closed by a knock. Here it closes
# after 30s. Connections stay when it closes. For later connections, make the
# window longer.
door "pfRule" {
  ports          = [2205]
  sequence       = [5105, "27105/udp", 1905]
  seq_timeout    = "25s"
  window         = "30s"
  close_sequence = [5106, "27106/udp", 1906]
}

# The command named the interface em0, so the door guards only this one. On
# other interfaces your firewall decides alone: everybody can reach what it
# accepts there.
# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "iptablesLong" {
  ports       = [2206]
  sequence    = [5107, "27107/udp", 1907]
  seq_timeout = "25s"
  window      = "30s"
  interfaces  = ["em0"]
}

# The limit of ufw is left out. Your firewall's own rule for the ports can
# have it.
# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "ufwLimit" {
  ports       = [2207]
  sequence    = [5108, "27108/udp", 1908]
  seq_timeout = "25s"
  window      = "30s"
}

# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "direct" {
  ports       = [2208]
  sequence    = [5109, "27109/udp", 1909]
  seq_timeout = "25s"
  window      = "30s"
}
