# Two hosts with one address, 192.0.2.10, which keepalived gives to one of them. Who has knocked
# there is let in at the other one, too, when it takes the address over: no second knock.
#
# Each host runs a NATS server, which is one command, and joins the other's. So there is no
# third machine, and each server dies with its host:
#
#     nats-server -c nats.conf
#
# The way between them is encrypted. Make the key on one host, and copy both files to the other:
#
#     openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=pair -addext subjectAltName=IP:192.0.2.11,IP:192.0.2.12 -keyout pair.key -out pair.pem
#
# Everybody with an account on one of the hosts can speak at its NATS server. What he can open
# with that is what the share block shares, for as long as the door says.

door "ssh" {
  ports    = [22]
  sequence = [26183, 4406, 19537] # choose your own
  window   = "60s"
}

share {
  group   = "pair"
  servers = ["nats://127.0.0.1:4222"]
}
