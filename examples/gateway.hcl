# A gateway that guards ssh of a host behind it.
#
# knockwall runs on the gateway alone. `to` lists the addresses of the host behind it,
# by which clients reach it through the gateway; the gateway's own ssh is not guarded
# by this door. Knocks are sent to the same address as the connection, and it need
# not be up to hear them:
#
#   knockwall knock inside.example.org 12790 31255/udp 5866 && ssh inside.example.org
#
# Write your own addresses and sequence. If the host is reached by an address of the
# gateway (port forwarding, DNAT), leave `to` out: the wall stands before the DNAT.
#
# What it costs: knockwall sees what passes the gateway. Hosts on the same network as
# the guarded one reach it without. When the wall first goes up, sessions through a
# gateway that did not track connections until then, by NAT or a stateful firewall,
# end: connect anew.

door "inside" {
  ports    = [22]
  to       = ["198.51.100.2", "2001:db8:2::2"]
  sequence = [12790, "31255/udp", 5866]
  window   = "30s"

  # By which interface strangers come. Without it, your own network has to knock
  # as well when it goes through the gateway.
  # interfaces = ["eth0"]
}
