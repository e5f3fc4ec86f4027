# From mistakes.conf, by `knockwall import`. What remains to be done:
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

# [port0], line 2
# This door is left out: in Sequence = 5001,0,1801, "0" is not a port: ports
# are whole numbers from 1 to 65535. Correct it in the old file, and import
# that again.

# [comma], line 6
# This door is left out: in Sequence = 5002,27002,, "" is not a port: ports
# are whole numbers from 1 to 65535. Correct it in the old file, and import
# that again.

# [empty], line 10
# This door is left out: in Sequence = , "" is not a port: ports are whole
# numbers from 1 to 65535. Correct it in the old file, and import that again.

# [semicolons], line 14
# This door is left out: in Sequence = 5003;27003;1803, "5003;27003;1803" is
# not a port: ports are whole numbers from 1 to 65535. Correct it in the old
# file, and import that again.

# Seq_Timeout = soon is not a number of seconds, and knockd took 0. Here it is
# 25 s, knockd's default.
# Cmd_Timeout = -1 is not a number of seconds, and knockd took 0. Here it is
# 10 s, knockd's default.
door "soon" {
  ports       = [22]
  sequence    = [5004, 27004, 1804]
  seq_timeout = "25s"
  window      = "10s"
}

door "seconds" {
  ports       = [22]
  sequence    = [5005, "27005/udp", 1805]
  seq_timeout = "10s"
  window      = "20s"
}
