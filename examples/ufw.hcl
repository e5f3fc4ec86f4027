# ssh on a host with ufw.
#
# The two are independent of each other, and a connection has to get past both: first
# knockwall, then ufw. knockwall only ever closes. It opens nothing in ufw, so ufw has
# to allow the port, to everybody. In this order, and in a session that stays open, so
# that the port is never bare:
#
#   sudo knockwall reload        # with this file in /etc/knockwall.d
#   sudo ufw allow 22/tcp        # `sudo ufw limit 22/tcp` is as good
#
# The knocks need no rule. They are heard before ufw drops them. Other rules of ufw
# may stay as they are.
#
#   knockwall knock server.example.org 26183 4406 19537/udp && ssh server.example.org
#
# Choose your own sequence.
#
# What it costs: when the wall is taken down (`knockwall down`), ssh is open to
# everybody, as ufw allows it. Take the rule out of ufw before, if that is not meant.

door "ssh" {
  ports    = [22]
  sequence = [26183, 4406, "19537/udp"]
  window   = "30s"
}
