# From /etc/fwknop/access.conf, by `knockwall import`. What remains to be
# done:
#
# 1. Read this file. Comments above each door say what is different from
#    before.
#
# 2. The keys are in files of their own, one for each line with file(...). If
#    they are not there yet, this writes them:
#        sudo knockwall import --secrets /etc/knockwall.secrets /etc/fwknop/access.conf > THIS-FILE
#
# 3. Check this file:
#        knockwall check --config THIS-FILE
#
# 4. Put the rules in force, in a session that stays open. If this file is not
#    in /etc/knockwall.d, move it there. The former rules return unless you
#    confirm the new ones in time, from a new connection:
#        sudo knockwall reload --confirm 2m
#        sudo knockwall confirm
#
# 5. Try it with a client. The clients need no change. Then stop fwknopd:
#        sudo systemctl disable --now fwknop-server

# person-1, line 1: FW_ACCESS_TIMEOUT was 90000 s. Here it is 24h, the
# maximum. Connections stay when the window ends.
# person-1, line 1: RESTRICT_PORTS was tcp/25. Leave these out of "ports".
# person-1, line 1: The stanza had no name for this person. Write one.
# Without OPEN_PORTS, fwknopd opened whatever port a client asked for. A door
# guards the ports that it lists: complete the line with "ports", and remove
# the # from these lines.
# door "fwknop" {
#   ports  = [22]
#   window = "24h"
#
#   fwknop "person-1" {
#     key      = file("/etc/knockwall.secrets/person-1.key")
#     hmac_key = file("/etc/knockwall.secrets/person-1.hmac")
#   }
# }
