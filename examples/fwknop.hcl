# ssh for people who have fwknop.
#
# Their clients stay as they are. One datagram opens the door. It is encrypted and signed
# (HMAC) with two keys that client and server share, and it is good once. A port scan finds
# neither the door nor the port that the datagrams are sent to.
#
# From fwknopd's files: `knockwall import /etc/fwknop/access.conf` makes such a file.
#
# Each person has a block with keys of their own. Make the keys for the daemon:
#
#   sudo install -d -o root -g knockwall -m 0750 /etc/knockwall.secrets
#   openssl rand -base64 32 | sudo install -o root -g knockwall -m 0640 /dev/stdin /etc/knockwall.secrets/alice.key
#   openssl rand -base64 48 | sudo install -o root -g knockwall -m 0640 /dev/stdin /etc/knockwall.secrets/alice.hmac
#   openssl rand -base64 32 | sudo install -o root -g knockwall -m 0640 /dev/stdin /etc/knockwall.secrets/bob.key
#   openssl rand -base64 48 | sudo install -o root -g knockwall -m 0640 /dev/stdin /etc/knockwall.secrets/bob.hmac
#
# The client has them in ~/.fwknoprc (chmod 600), and opens the door by `fwknop -n server`:
#
#   [server]
#   SPA_SERVER        server.example.org
#   ACCESS            tcp/22
#   ALLOW_IP          source
#   USE_HMAC          Y
#   KEY_BASE64        the line in alice.key
#   HMAC_KEY_BASE64   the line in alice.hmac
#
# fwknop's own client sends over IPv4 only. knockwall's client sends over IPv6, too, with this
# in ~/.config/knockwall/hosts.hcl (`knockwall help knock`):
#
#   host "server.example.org" {
#     fwknop {
#       key      = file("/home/alice/alice.key")
#       hmac_key = file("/home/alice/alice.hmac")
#       access   = [22]
#     }
#   }
#
#   knockwall knock server.example.org && ssh server.example.org
#
# With ALLOW_IP source, the door opens for the address that the datagram comes from. Somebody
# who can intercept the datagram can send it from elsewhere. `source = "signed"` prevents
# that: the client must name its address (fwknop -a, or -R behind NAT).
#
# What it costs: the clock of a client must be right within two minutes. Anybody who gets the
# keys of a person can get in until you change them in both places.

door "ssh" {
  ports  = [22]
  window = "30s"

  fwknop "alice" {
    key      = file("/etc/knockwall.secrets/alice.key")
    hmac_key = file("/etc/knockwall.secrets/alice.hmac")
  }

  fwknop "bob" {
    key      = file("/etc/knockwall.secrets/bob.key")
    hmac_key = file("/etc/knockwall.secrets/bob.hmac")
    hmac     = "sha512" # the client's HMAC_DIGEST_TYPE
    user     = "bob"    # the client's user, or its SPOOF_USER
    source   = "signed"
    expires  = "2099-01-01"
  }
}
