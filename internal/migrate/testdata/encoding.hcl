# From encoding.conf, by `knockwall import`. What remains to be done:
#
# 1. NOTHING IS GUARDED: no door here has ports. Where a comment below says
#    which line is missing, write it.
#
# 2. Read this file. Comments above each door say what is different from
#    before. Then check it:
#        knockwall check --config THIS-FILE
#
# 3. Put the rules in force, in a session that stays open. If this file is not
#    in /etc/knockwall.d, move it there. The former rules return unless you
#    confirm the new ones in time, from a new connection:
#        sudo knockwall reload --confirm 2m
#        sudo knockwall confirm
#
# 4. Try a knock. Then stop knockd, which would go on to hear the knocks and
#    to run its commands.
#        sudo systemctl disable --now knockd

# [a], line 1
# This command is left out, as it is not UTF-8 in normal form C, so a rule
# file cannot hold it unchanged: write its accented characters anew. Correct
# it in the old file, and import that again: echo \xe9t\xe9

# [b], line 4
# This door is left out: "/etc/\\xe9" is not an absolute path in UTF-8. Write
# the path of the file with the sequences, which begins with /, into the old
# file, and import that again.
