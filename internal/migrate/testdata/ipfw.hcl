# From ipfw.conf, by `knockwall import`. What remains to be done:
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
#    everybody: 22/tcp, 80/tcp, 443/tcp, 1000-1010/tcp, 80/udp, 443/udp,
#    1000-1010/udp. Under knockd your firewall drops these ports, and knockd
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
# 4. Try a knock. Then stop knockd, which would go on to hear the knocks and
#    to run its commands.
#        sudo systemctl disable --now knockd

# The command named the interface em0, so the door guards only this one. On
# other interfaces your firewall decides alone: everybody can reach what it
# accepts there.
door "open" {
  ports       = [22]
  sequence    = [5001, "27001/udp", 1801]
  seq_timeout = "25s"
  window      = "20s"
  interfaces  = ["em0"]
}

door "any" {
  ports       = [80, 443, "1000-1010/tcp", "80/udp", "443/udp", "1000-1010/udp"]
  sequence    = [5002, "27002/udp", 1802]
  seq_timeout = "25s"
  window      = "20s"
}
