# Rules of knockwall. As it comes this file guards nothing: every port answers as
# it did. Other *.hcl files in this folder count, too.
#
# To hide ssh, in a session that stays open, as what is established stays:
#
# 1. Choose three to five ports in no order, for everybody can read those below,
#    and an address from which you need not knock. Then take the # away.
#
# 2. Is that right? This changes nothing:
#
#      knockwall check
#
# 3. Put it in force for two minutes. Unless you confirm, all ports are as before
#    when they are over:
#
#      knockwall reload --confirm 2m
#
# 4. From another machine than the trusted one, knock and get in:
#
#      ssh -o ProxyCommand='knockwall connect %h %p 4113 27911/udp 1840' server.example.org
#
#    and type there:
#
#      knockwall confirm
#
# More of these are in /usr/share/doc/knockwall/examples.

# wall {
#   trusted = ["198.51.100.7", "2001:db8:1::/64"]   # need not knock
# }

# door "ssh" {
#   ports    = [22]
#   sequence = [4113, "27911/udp", 1840]
#   window   = "30s"
# }
