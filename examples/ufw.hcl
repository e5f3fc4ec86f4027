# ssh on a host with ufw.
#
# knockwall and ufw are independent, and a connection must pass both: first knockwall, then
# ufw. knockwall opens nothing in ufw, so ufw must allow the port for everybody. Type these
# commands in this order, so that the port is never unguarded, and in a session that stays
# open:
#
#   sudo knockwall reload        # with this file in /etc/knockwall.d
#   sudo ufw allow 22/tcp        # `sudo ufw limit 22/tcp` is as good
#
# The knocks need no rule: knockwall hears them before ufw drops them. Leave ufw's other
# rules as they are.
#
#   knockwall knock server.example.org 26183 4406 19537/udp && ssh server.example.org
#
# Choose your own sequence.
#
# What it costs: if you take the wall down (`knockwall down`), ssh is open to everybody, as
# ufw allows it. If you do not want that, delete ufw's rule first.

door "ssh" {
  ports    = [22]
  sequence = [26183, 4406, "19537/udp"]
  window   = "30s"
}
