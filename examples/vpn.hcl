# A VPN that listens on a UDP port, such as WireGuard.
#
# Datagrams of a connection that the server has answered pass, so that a tunnel
# which carries traffic stays up. When it has been quiet for longer than conntrack
# remembers (two minutes by default), the client has to knock again: a
# PersistentKeepalive of 25 s keeps that from happening.
#
#   knockwall knock vpn.example.org 30117 2204/udp 15890 && wg-quick up wg0
#
# Choose your own sequence. A tunnel that goes up by itself, such as on a phone, can
# come from another address a moment later: see phone.hcl.

door "vpn" {
  ports    = ["51820/udp"]
  sequence = [30117, "2204/udp", 15890]
  window   = "1m"
}
