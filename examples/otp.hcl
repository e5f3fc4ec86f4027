# ssh, and a VPN, behind one-time passwords.
#
# One datagram opens the door. It is computed from a secret, the client's address and the
# minute, and it is good once. An overheard datagram is useless, and no port scan finds the
# door. xt_pknock and Atomicorp use the same passwords.
#
# A secret is a line of up to 31 bytes in a file of its own. Make the secrets for the
# daemon:
#
#   sudo install -d -o root -g knockwall -m 0750 /etc/knockwall.secrets
#   openssl rand -hex 15 | sudo install -o root -g knockwall -m 0640 /dev/stdin /etc/knockwall.secrets/ssh-open
#   openssl rand -hex 15 | sudo install -o root -g knockwall -m 0640 /dev/stdin /etc/knockwall.secrets/ssh-close
#
# Copy both to the client over a safe connection, such as scp, as files that only you can
# read (chmod 600). This opens the door:
#
#   knockwall knock --otp-file ~/.ssh/server-open server.example.org 2000 && ssh server.example.org
#
# This closes it before its time is up:
#
#   knockwall knock --otp-file ~/.ssh/server-close server.example.org 2000
#
# For ssh, put this into ~/.ssh/config:
#
#   Host server.example.org
#       ProxyCommand knockwall connect --otp-file ~/.ssh/server-open %h %p 2000
#
# Behind NAT the server sees an address that is not the client's own. Name that address:
#
#   knockwall knock --otp-file ~/.ssh/server-open --otp-source 203.0.113.7 server.example.org 2000
#
# If that address changes, knock over IPv6, which has no NAT.
#
# Both clocks must be right to the minute, plus `skew`. NTP ensures that.
#
# What it costs: anybody who gets a secret can get in until you change it in both places.
# As with knocks, everybody who shares your address gets in while the window is open.

door "ssh" {
  ports  = [22]
  window = "30s"
  otp {
    port         = "2000/udp"
    open_secret  = file("/etc/knockwall.secrets/ssh-open")
    close_secret = file("/etc/knockwall.secrets/ssh-close")
    skew         = "1m"
  }
}

# systemd can hand a secret that only root can read to the service. Type
# `sudo systemctl edit knockwall` and add:
#
#   [Service]
#   LoadCredential=vpn-open:/etc/knockwall.secrets/vpn-open
#
# The service reads such secrets, and changes to them, only when it restarts: sudo
# systemctl restart knockwall. `knockwall check` cannot see them, and says so.
#
#   knockwall knock --otp-file ~/.ssh/vpn-open vpn.example.org 2001 && wg-quick up wg0

door "vpn" {
  ports  = ["51820/udp"]
  window = "1m"
  otp {
    port        = "2001/udp"
    open_secret = credential("vpn-open")
    skew        = "1m"
  }
}
