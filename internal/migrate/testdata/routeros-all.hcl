# From routeros-all.conf, by `knockwall import`. What remains to be done:
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
# 4. Then, and not before, let your firewall accept, from everybody, the ports
#    that you leave in the doors. knockwall adds no rules to your firewall:
#    what it drops stays dropped, with or without a knock.
#
# 5. Try a knock. Then remove the rules of the old recipe from your firewall:
#    what they drop stays dropped.

# The command opened every port, so this door guards every port, also those
# that everybody reaches today, such as those of a web server. Leave these
# out: write into "ports" only what is to be hidden, and let your firewall
# accept just that. The knocks are left out already, and 68/udp and 546/udp,
# as DHCP needs them.
door "guests" {
  ports       = ["1-1905/tcp", "1907-5105/tcp", "5107-65535/tcp", "1-67/udp", "69-545/udp", "547-65535/udp"]
  sequence    = [5106, 1906]
  seq_timeout = "10s"
  window      = "1h"
}
