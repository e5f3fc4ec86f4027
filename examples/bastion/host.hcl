# Each of the ten hosts behind the bastion. bastion.hcl says how they come together.

door "ssh" {
  ports    = [22]
  sequence = [31544, 8120, 2907] # for when the bastion is gone: other knocks than there
  window   = "60s"               # what the bastion opens is not open for longer, either
}

share {
  group   = "site"
  servers = ["tls://192.0.2.1:4222"]
  nkey    = "/etc/knockwall.secrets/host1.nk" # this host's own
  tls {
    ca = "/etc/knockwall.secrets/nats.pem"
  }
}
