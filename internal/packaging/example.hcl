# Rule file of knockwall. As installed it guards nothing: every port answers as before.
# knockwall also reads all other *.hcl files in this folder.
#
# To hide ssh, use a session that stays open: established connections stay.
#
# 1. Choose three to five ports in no order: everybody knows the ports below. Choose an
#    address from which you need not knock. Then remove the # from the lines below.
#
# 2. Check the file. This changes nothing:
#
#      sudo knockwall check
#
# 3. Put the rules in force for two minutes. If you do not confirm them in that time, all
#    ports are as before:
#
#      sudo knockwall reload --confirm 2m
#
# 4. On a machine that is not trusted, knock and get in:
#
#      ssh -o ProxyCommand='knockwall connect %h %p 4113 27911/udp 1840' server.example.org
#
#    In that session type:
#
#      sudo knockwall confirm
#
# More examples are in /usr/share/doc/knockwall/examples.

# wall {
#   trusted = ["198.51.100.7", "2001:db8:1::/64"]   # need not knock
# }

# door "ssh" {
#   ports    = [22]
#   sequence = [4113, "27911/udp", 1840]
#   window   = "30s"
# }
