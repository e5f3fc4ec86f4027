# An admin page on a web server whose other pages are public.
#
# A browser opens many connections, and more of them later, so the window is long. A
# browser prefers IPv6 where it can, whichever protocol you used to knock. So knock over
# both. If your network has only one of them, the other command says so and does no harm.
#
#   knockwall knock -4 www.example.org 7113/udp 22640 11907/udp 3355
#   knockwall knock -6 www.example.org 7113/udp 22640 11907/udp 3355
#
# When you are done, close the window, so that it does not stay open until its end:
#
#   knockwall knock -4 www.example.org 25219 8876/udp 14003
#   knockwall knock -6 www.example.org 25219 8876/udp 14003
#
# Choose your own knocks, for opening and for closing.
#
# What it costs: computers change their IPv6 address within a network from time to time, so
# this door treats a whole network, a /64, as one source. While the window is open, your
# neighbours on that network get in too. Over IPv4 everybody who shares your public address
# gets in, as always.

door "admin" {
  ports          = [8443]
  sequence       = ["7113/udp", 22640, "11907/udp", 3355]
  close_sequence = [25219, "8876/udp", 14003]
  window         = "15m"
  source_prefix  = { ipv6 = 64 }

  # This host answers on closed ports, so the door must answer too.
  closed = "reject"
}
