# ssh, and a VPN, behind one-time passwords.
#
# One datagram opens the door. It is made of a secret, of the address that it comes
# from, and of the minute, and is good once. Who overhears it can do nothing with it,
# and no port scan finds it. It is the same as xt_pknock and Atomicorp have.
#
# A secret is a line of up to 31 bytes in a file of its own. For the daemon:
#
#   sudo install -d -o root -g knockwall -m 0750 /etc/knockwall.secrets
#   openssl rand -hex 15 | sudo install -o root -g knockwall -m 0640 /dev/stdin /etc/knockwall.secrets/ssh-open
#   openssl rand -hex 15 | sudo install -o root -g knockwall -m 0640 /dev/stdin /etc/knockwall.secrets/ssh-close
#
# Bring both to the client over a connection that is safe, such as scp, as files that
# only you can read (chmod 600). Then
#
#   knockwall knock --otp-file ~/.ssh/server-open server.example.org 2000 && ssh server.example.org
#
# opens the door, and before its time is up this closes it again:
#
#   knockwall knock --otp-file ~/.ssh/server-close server.example.org 2000
#
# or once and for all, in ~/.ssh/config:
#
#   Host server.example.org
#       ProxyCommand knockwall connect --otp-file ~/.ssh/server-open %h %p 2000
#
# Behind NAT the server sees another address than the client has: name that one.
#
#   knockwall knock --otp-file ~/.ssh/server-open --otp-source 203.0.113.7 server.example.org 2000
#
# Where it is not always the same, knock by IPv6, which has no NAT.
#
# Both clocks have to be right: to the minute, and `skew` more. NTP does that.
#
# What it costs: who gets hold of a secret can get in until you change it, and change
# it in both places. As with knocks, whoever shares your address is let in with you
# while the window is open.

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

# Secrets that only root can read, and that systemd hands to the service, in
# `sudo systemctl edit knockwall`:
#
#   [Service]
#   LoadCredential=vpn-open:/etc/knockwall.secrets/vpn-open
#
# It gets them, and changes to them, when it is restarted: sudo systemctl restart
# knockwall. `knockwall check` cannot see them, and says so.
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
