# ssh and a VPN for people who have ssh keys.
#
# One datagram opens the door. The client's ssh-agent, or its key file, signs it, and it is
# sealed to this host. It is good once. A port scan finds neither the door nor the port that
# the datagrams are sent to. Nobody shares a secret, and each window has the name of a person.
#
# `knockwall init ssh 22 --keys` makes such a file, and all that it needs. By hand, make this
# host's identity and a file that says who may knock:
#
#   sudo knockwall identity
#   sudo install -o root -g knockwall -m 0640 /dev/null /etc/knockwall.d/people
#
# Add the text of each person's .pub file to it, as to ~/.ssh/authorized_keys. Options limit
# what a person can open, for how long, and until when:
#
#   ssh-ed25519 AAAA... alice@laptop
#   doors="vpn",window="10m",expiry-time="20991231" ssh-ed25519 AAAA... bob@phone
#
# `sudo knockwall reload` puts changes in force. The windows of somebody whose line is gone
# are then closed.
#
# `sudo knockwall invite ssh` prints a line for clients, without a secret. There type
# `knockwall join --ssh LINE`. From then on ssh knocks by itself. For other programs:
#
#   knockwall knock server.example.org && ssh server.example.org
#
# The door opens for the address that the datagram comes from. Somebody who can intercept the
# datagram can send it from elsewhere. `source = "signed"` prevents that: the client must name
# its address (source in its hosts file: `knockwall help knock`).
#
# What it costs: the clock of a client must be right within two minutes (skew). Anybody who
# gets a person's key, or may use that person's agent, can get in until you delete the line.

door "ssh" {
  ports  = [22]
  window = "30s"
  keys {
    authorized = ["/etc/knockwall.d/people"]
  }
}

door "vpn" {
  ports  = ["51820/udp"]
  window = "1m"
  keys {
    authorized = ["/etc/knockwall.d/people"]
  }
}
