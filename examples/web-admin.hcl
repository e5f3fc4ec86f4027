# An admin page on a web server that everybody may use otherwise.
#
# A browser opens many connections, and more of them later, so the window is long.
# Browsers also prefer IPv6 and change their address within a network from time to
# time: source_prefix makes the whole /64 one source, which lets the neighbours on
# the same network in, too, while the window is open.

door "admin" {
  ports         = [8443]
  sequence      = ["7113/udp", 22640, "11907/udp", 3355]
  window        = "15m"
  source_prefix = { ipv6 = 64 }

  # The host answers on its closed ports, so the door does as well.
  closed = "reject"
}
