# ssh, for one person or a few.
#
# Port 22 is silent until a client knocks at three ports in this order. Then the port is
# open for half a minute, for the address that has knocked and for new connections. A
# session that has begun stays, however long it lasts.
#
# Choose your own sequence before you use this file: everybody can read this one.
#
#   knockwall knock server.example.org 4113 27911/udp 1840 && ssh server.example.org
#
# For ssh, put this into ~/.ssh/config:
#
#   Host server.example.org
#       ProxyCommand knockwall connect %h %p 4113 27911/udp 1840
#
# Ports beside the knocks, and some elsewhere, are traps: a source that tries one cannot
# knock at this door for half a minute. So a port scan does not open the door by chance. A
# typing error of your own costs you half a minute too. (traps, penalty)
#
# What it costs: anybody who can watch your packets sees the knocks and can repeat them. If
# that matters, see otp.hcl.

wall {
  # Addresses that can always get in, whatever you forget or break: your home, your
  # provider's console, the host from which you administer others.
  # trusted = ["198.51.100.7", "2001:db8:1::/64"]
}

door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  window   = "30s"
}
