# Two gateways before one host. keepalived gives their addresses to one of them, 192.0.2.10 for
# clients and 198.51.100.1 for the host behind. When that one dies, the other one takes over:
#
# - Who has knocked is let in there, too: the windows are shared by knockwall share.
# - Sessions go on there: the kernel's connections are shared by conntrackd.
#
# Only sessions that pass a gateway go on. A session with a gateway itself, such as ssh to it,
# ends with it, as its TCP ends there. The wall lets pass what the kernel's conntrack knows, so
# it needs no other table for that. conntrackd tells labels, too: a session that was ended by
# knockwall close --sessions does not live on at the other gateway.
#
# A cable between the gateways, 10.0.0.1 to 10.0.0.2, carries both in plain text. Nobody else may
# be on it: who is can open doors and add connections. The files, and where they belong:
#
#     knockwall.hcl     /etc/knockwall.d/
#     nats.conf         nats-server -c nats.conf
#     conntrackd.conf   /etc/conntrackd/       change the addresses at the other gateway
#     role.sh           /etc/conntrackd/       owner root, mode 755
#     keepalived.conf   /etc/keepalived/
#
# Both gateways forward: sysctl net.ipv4.ip_forward=1. Clients have a route to the host by
# 192.0.2.10, and the host has its default route by 198.51.100.1.

door "ssh" {
  ports    = [22]
  to       = ["198.51.100.2"]
  sequence = [26183, 4406, 19537] # choose your own
  window   = "60s"
}

share {
  group   = "gateways"
  servers = ["nats://127.0.0.1:4222"]
}
