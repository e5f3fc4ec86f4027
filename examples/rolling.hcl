# ssh behind a sequence that is another one every half a minute.
#
# The knocks follow from a secret and from the time. Who overhears them can do nothing
# with them a minute later, and any program that knocks will do: what you need on top
# is the knocks of now. For the daemon, make a secret:
#
#   sudo install -d -o root -g knockwall -m 0750 /etc/knockwall.secrets
#   openssl rand -hex 16 | sudo install -o root -g knockwall -m 0640 /dev/stdin /etc/knockwall.secrets/ssh-rolling
#
# The client has a copy of this file, and of the secret, over a connection that is
# safe, such as scp. In the client's copy of the file, file() names the client's copy of
# the secret, by its whole path (chmod 600). `knockwall ports` prints the knocks of now:
#
#   knockwall knock server.example.org $(knockwall ports --config ~/server.hcl ssh) && ssh server.example.org
#
# or once and for all, in ~/.ssh/config:
#
#   Host server.example.org
#       ProxyCommand knockwall connect %h %p $(knockwall ports --config ~/server.hcl ssh)
#
# Both clocks have to be right to half a minute; NTP does that. For clocks that are off
# the knocks of the step before this one, and of the one after it, are good as well, for
# whoever is first to use them.
#
# What it costs: who watches you knock can repeat it for as long as the half minute
# lasts; against that, there is otp.hcl. Services on ports of the range go on working,
# but let no door guard one of them: whoever finds the port may have found a knock.

door "ssh" {
  ports  = [22]
  window = "30s"
  rolling {
    secret = file("/etc/knockwall.secrets/ssh-rolling")
    length = 4
    ports  = "20000-29999"
    step   = "30s"
  }
}
