# ssh from a phone, or from anywhere else where your address does not stay the same.
#
# Phones have two habits. Over IPv4 a carrier sends its customers out by a pool of
# addresses, and each knock of yours may come from another of them. Over IPv6 you
# have a network of your own, a /64, and change your address within it for privacy.
# So here those who share the first 24 bits of IPv4, or 64 of IPv6, are one source:
# who of them knocks, opens for all of them.
#
#   knockwall knock -6 server.example.org 8647 24031 2719/udp 17350 && ssh -6 server.example.org
#
# Choose your own sequence. Knock by IPv6 where you can, as only you are in your /64.
# With an app that knocks, write udp as it wants to have it.
#
# What it costs: over IPv4, 256 addresses are let in while the window is open, and
# with a carrier's NAT there may be a hundred customers behind each of them. So the
# window is short, and what listens on the port has to be safe by itself. A neighbour
# who scans your ports meets a trap, and keeps all of you from knocking: the penalty is
# short as well. If the addresses of the pool have fewer bits in common, the knocks do
# not add up: write a smaller number, or take one-time passwords by IPv6 (otp.hcl).

door "phone" {
  ports         = [22]
  sequence      = [8647, 24031, "2719/udp", 17350]
  window        = "15s"
  penalty       = "5s"
  source_prefix = { ipv4 = 24, ipv6 = 64 }
}
