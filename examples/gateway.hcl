# A gateway that guards the ssh port of a host behind it.
#
# knockwall runs on the gateway alone. `to` lists the addresses at which clients reach the
# host through the gateway. This door does not guard the ssh port of the gateway itself.
# Clients knock at the address that they connect to. The host need not be up for that, as
# the gateway hears the knocks:
#
#   knockwall knock inside.example.org 12790 31255/udp 5866 && ssh inside.example.org
#
# Write your own addresses and sequence. If clients reach the host at an address of the
# gateway (port forwarding, DNAT), leave `to` out: the wall stands before the DNAT.
#
# What it costs: knockwall sees only what passes the gateway. Hosts on the same network as
# the guarded host reach it without knocking. If the gateway tracked no connections before
# (it had no NAT and no stateful firewall), the sessions through it end when the wall first
# goes up. Connect again.

door "inside" {
  ports    = [22]
  to       = ["198.51.100.2", "2001:db8:2::2"]
  sequence = [12790, "31255/udp", 5866]
  window   = "30s"

  # The interface that strangers come in by. Without this line your own network must
  # knock too when it goes through the gateway.
  # interfaces = ["eth0"]
}
