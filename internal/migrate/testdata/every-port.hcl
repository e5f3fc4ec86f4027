# From every-port.conf, by `knockwall import`. What remains to be done:
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
# 5. Try a knock. Then stop knockd, which would go on to hear the knocks and
#    to run its commands.
#        sudo systemctl disable --now knockd

# The command opened every port, so this door guards every port, also those
# that everybody reaches today, such as those of a web server. Leave these
# out: write into "ports" only what is to be hidden, and let your firewall
# accept just that. The knocks are left out already, and 68/udp and 546/udp,
# as DHCP needs them.
# The close_sequence was the door [shut].
# knockd left this door open until it was closed by a knock. Here it closes
# after 30s. Connections stay when it closes. For later connections, make the
# window longer.
door "open" {
  ports          = ["1-1900/tcp", "1903-5100/tcp", "5103-65535/tcp", "1-67/udp", "69-545/udp", "547-27100/udp", "27103-65535/udp"]
  sequence       = [5101, "27101/udp", 1901]
  seq_timeout    = "25s"
  window         = "30s"
  close_sequence = [5102, "27102/udp", 1902]
}
