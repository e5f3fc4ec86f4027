# From recent-lines.conf, by `knockwall import`. What remains to be done:
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
#    everybody: 22/tcp. So far your firewall accepts these ports from the
#    sources in a set, which its own rules fill after the knocks. knockwall
#    adds no rules to your firewall. Its table comes before the firewall, and
#    only refuses sources that have not knocked. Your firewall still decides
#    about what the table lets pass. As long as that DROP is there, nobody
#    gets in, with or without a knock. If you remove it before the wall is up,
#    everybody gets in. So replace it by an ACCEPT while the wall is up, and
#    save the rules. Other rules can stay. The command depends on your
#    firewall (ip6tables for IPv6):
#        iptables -I INPUT -p tcp --dport 22 -j ACCEPT
#        ufw allow 22/tcp
#        firewall-cmd --permanent --add-port=22/tcp && firewall-cmd --reload
#
# 4. Try a knock. Then remove the rules of the old recipe from your firewall:
#    what they drop stays dropped.

# Each knock had its own time. Here seq_timeout is the sum of them, from the
# first knock to the last.
door "IN2" {
  ports       = [22]
  sequence    = [1903, "5103/udp", 27103]
  seq_timeout = "30s"
  window      = "45s"
}
