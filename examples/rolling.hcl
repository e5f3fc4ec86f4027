# ssh behind a sequence that changes every half minute.
#
# The knocks follow from a secret and the time. Overheard knocks are useless a minute
# later. Any program that knocks will do, if you give it the present knocks. Make a secret
# for the daemon:
#
#   sudo install -d -o root -g knockwall -m 0750 /etc/knockwall.secrets
#   openssl rand -hex 16 | sudo install -o root -g knockwall -m 0640 /dev/stdin /etc/knockwall.secrets/ssh-rolling
#
# Copy this file and the secret to the client over a safe connection, such as scp. In the
# client's copy of this file, let file() name the client's copy of the secret by its
# absolute path. Make both readable only for you (chmod 600). `knockwall ports` prints the
# present knocks:
#
#   knockwall knock server.example.org $(knockwall ports --config ~/server.hcl ssh) && ssh server.example.org
#
# For ssh, put this into ~/.ssh/config:
#
#   Host server.example.org
#       ProxyCommand knockwall connect %h %p $(knockwall ports --config ~/server.hcl ssh)
#
# Both clocks must be right to half a minute. NTP ensures that. To allow for clocks that
# are off, the knocks of the previous and of the next step are good too, once, for the
# first source that uses them.
#
# What it costs: somebody who watches you knock can repeat the knocks until the half minute
# is over. otp.hcl prevents that. Services on ports of the range keep working. But do not
# guard a port of the range: somebody who finds the port may have found a knock.

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
