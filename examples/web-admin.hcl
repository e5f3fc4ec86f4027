# An admin page on a web server that everybody may use otherwise.
#
# A browser opens many connections, and more of them later, so the window is long.
# It also prefers IPv6 where there is some, whatever you have knocked by: knock by
# both. If the network has but one, the other command says so, and does no harm.
#
#   knockwall knock -4 www.example.org 7113/udp 22640 11907/udp 3355
#   knockwall knock -6 www.example.org 7113/udp 22640 11907/udp 3355
#
# and when you are done, rather than to wait for the window's end:
#
#   knockwall knock -4 www.example.org 25219 8876/udp 14003
#   knockwall knock -6 www.example.org 25219 8876/udp 14003
#
# Choose your own knocks, of both kinds.
#
# What it costs: computers change their IPv6 address within a network from time to
# time, so here all of a network, a /64, is one source. While the window is open the
# neighbours on that network are let in, too; and by IPv4, as always, everybody who
# shares your public address.

door "admin" {
  ports          = [8443]
  sequence       = ["7113/udp", 22640, "11907/udp", 3355]
  close_sequence = [25219, "8876/udp", 14003]
  window         = "15m"
  source_prefix  = { ipv6 = 64 }

  # The host answers on its closed ports, so the door does as well.
  closed = "reject"
}
