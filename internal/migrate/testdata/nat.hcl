# From nat.conf, by `knockwall import`. What remains to be done:
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
#    everybody: 4431/tcp, 4432/tcp, 4433/tcp, 4434/tcp, 8022/tcp, 8081/tcp.
#    Under knockd your firewall drops these ports, and knockd inserts an
#    ACCEPT for one source before that DROP. knockwall adds no rules to your
#    firewall. Its table comes before the firewall, and only refuses sources
#    that have not knocked. Your firewall still decides about what the table
#    lets pass. As long as that DROP is there, nobody gets in, with or without
#    a knock. If you remove it before the wall is up, everybody gets in. So
#    replace it by an ACCEPT while the wall is up, and save the rules. Other
#    rules can stay. The command depends on your firewall (ip6tables for
#    IPv6):
#        iptables -I INPUT -p tcp --dport 4431 -j ACCEPT
#        ufw allow 4431/tcp
#        firewall-cmd --permanent --add-port=4431/tcp && firewall-cmd --reload
#
# 4. Try a knock. Then stop knockd, which would go on to hear the knocks and
#    to run its commands.
#        sudo systemctl disable --now knockd

# NAT: the command changed where the source's packets go, and knockwall
# changes no addresses and ports. So let your firewall do that for everybody,
# who cannot get past this door without a knock: iptables -t nat -A PREROUTING
# -p tcp --dport 4431 -j REDIRECT --to-ports 2201
# If everybody is to reach these ports as well, as those of a web server,
# guard the port behind the translation instead, and let clients connect to
# that one.
door "redirect" {
  ports       = [4431]
  sequence    = [5101, "27101/udp", 1901]
  seq_timeout = "25s"
  window      = "20s"
}

# The command also let packets through to the inner host. Your firewall has to
# do that for everybody.
# NAT: the command changed where the source's packets go, and knockwall
# changes no addresses and ports. So let your firewall do that for everybody,
# who cannot get past this door without a knock: iptables -t nat -A PREROUTING
# -p tcp --dport 8022 -j DNAT --to-destination '10.0.0.5:22'
# If everybody is to reach these ports as well, as those of a web server,
# guard the port behind the translation instead, and let clients connect to
# that one.
door "dnat" {
  ports       = [8022]
  sequence    = [5102, "27102/udp", 1902]
  seq_timeout = "25s"
  window      = "10s"
}

# NAT: the command changed where the source's packets go, and knockwall
# changes no addresses and ports. So let your firewall do that for everybody,
# who cannot get past this door without a knock: nft 'add rule ip nat
# prerouting tcp dport 4432 counter redirect to :2202'
# If everybody is to reach these ports as well, as those of a web server,
# guard the port behind the translation instead, and let clients connect to
# that one.
# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "nft" {
  ports       = [4432]
  sequence    = [5103, "27103/udp", 1903]
  seq_timeout = "25s"
  window      = "30s"
}

# The command opened these ports to everybody as soon as one source had
# knocked. Here they open to this source only.
# NAT: the command changed where the source's packets go, and knockwall
# changes no addresses and ports. So let your firewall do that for everybody,
# who cannot get past this door without a knock: firewall-cmd --permanent
# --add-forward-port=port=4433:proto=tcp:toport=2203
# If everybody is to reach these ports as well, as those of a web server,
# guard the port behind the translation instead, and let clients connect to
# that one.
door "forwardPort" {
  ports       = [4433]
  sequence    = [5104, "27104/udp", 1904]
  seq_timeout = "25s"
  window      = "10m"
}

# NAT: the command changed where the source's packets go, and knockwall
# changes no addresses and ports. So let your firewall do that for everybody,
# who cannot get past this door without a knock: firewall-cmd --permanent
# --add-forward-port=port=4434:proto=tcp:toport=2204:toaddr=
# If everybody is to reach these ports as well, as those of a web server,
# guard the port behind the translation instead, and let clients connect to
# that one.
# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "richForward" {
  ports       = [4434]
  sequence    = [5105, "27105/udp", 1905]
  seq_timeout = "25s"
  window      = "30s"
}

# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "docker" {
  ports       = [8081]
  sequence    = [5106, "27106/udp", 1906]
  seq_timeout = "25s"
  window      = "30s"
}
