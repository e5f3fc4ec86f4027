# A VPN that listens on a UDP port, such as WireGuard.
#
# Datagrams of a connection that the server has answered pass, so a tunnel that carries
# traffic stays up. If it is silent for longer than `udp_timeout` (five minutes by default),
# the client must knock again. A PersistentKeepalive of 25 s prevents that.
#
#   knockwall knock vpn.example.org 30117 2204/udp 15890 && wg-quick up wg0
#
# Choose your own sequence. A tunnel that starts on its own, for example on a phone, may
# connect from another address a moment later: see phone.hcl.

door "vpn" {
  ports    = ["51820/udp"]
  sequence = [30117, "2204/udp", 15890]
  window   = "1m"
}
