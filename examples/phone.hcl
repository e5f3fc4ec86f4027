# ssh from a phone, or from any other place where your address changes.
#
# Over IPv4 a carrier's customers share a pool of addresses, and each of your knocks may
# come from another address. Over IPv6 you have a network of your own, a /64, and your
# phone changes its address within it for privacy. So this door treats all addresses with
# the same first 24 bits (IPv4) or 64 bits (IPv6) as one source: if one of them knocks, the
# door opens for all of them.
#
#   knockwall knock -6 server.example.org 8647 24031 2719/udp 17350 && ssh -6 server.example.org
#
# Choose your own sequence. Knock over IPv6 where you can: nobody else is in your /64. In a
# knocking app, write udp in the form that the app expects.
#
# What it costs: over IPv4, 256 addresses are let in while the window is open, and a
# carrier's NAT may have a hundred customers behind each of them. So the window is short,
# and the service on the port must be safe by itself. A neighbour who scans your ports
# meets a trap, and then none of you can knock. So the penalty is short too. If the
# addresses of the pool have fewer bits in common, your knocks are not counted together:
# write a smaller number, or use one-time passwords over IPv6 (otp.hcl).

door "phone" {
  ports         = [22]
  sequence      = [8647, 24031, "2719/udp", 17350]
  window        = "15s"
  penalty       = "5s"
  source_prefix = { ipv4 = 24, ipv6 = 64 }
}
