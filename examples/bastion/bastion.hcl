# A bastion, 192.0.2.1, that opens ten hosts: who has knocked here is let in at all of them, and
# each host sees that client's own address. This is the rule file of the bastion, host.hcl that
# of each host.
#
# The bastion runs the NATS server, which is one command:
#
#     nats-server -c nats.conf
#
# It knows each host by a key of its own, and lets it publish only as itself. keys.sh makes all
# files that this needs, with the server's address and the names of the hosts:
#
#     sh keys.sh 192.0.2.1 bastion host1 host2 host3 host4 host5 host6 host7 host8 host9 host10
#
# members.conf, nats.pem and nats.key stay at the server, in /etc/nats. Each host gets nats.pem and
# its own NAME.nk, in /etc/knockwall.secrets: owner root, group knockwall, mode 640. TCP port 4222
# of the bastion must be open for the hosts, and for nobody else.

door "ssh" {
  ports    = [22]
  sequence = [26183, 4406, 19537] # choose your own
  window   = "60s"
}

share {
  group   = "site"
  servers = ["tls://192.0.2.1:4222"]
  nkey    = "/etc/knockwall.secrets/bastion.nk"
  tls {
    ca = "/etc/knockwall.secrets/nats.pem"
  }
}
