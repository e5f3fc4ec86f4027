# ssh behind sequences of which each opens the door once, from a list.
#
# For one person, who can carry the list: as a file, or on a sheet of paper. It is a
# sequence a line. Make a hundred, where the daemon can cross out what is used:
#
#   for i in $(seq 100); do shuf -i 1024-65535 -n 4 | paste -sd,; done |
#     sudo install -o knockwall -g knockwall -m 0600 /dev/stdin /var/lib/knockwall/ssh-sequences
#
# Copy the list to the client, over a connection that is safe. There, knock by the
# first line that is not crossed out, and when you are in, cross it out as well:
#
#   knockwall knock server.example.org $(grep -m 1 '^[^#]' ~/ssh-sequences | tr , ' ') && ssh server.example.org
#   sed -i '0,/^[^#]/s//#/' ~/ssh-sequences
#
# Only the next line opens the door, so two people with one list get in each other's
# way: give each a door and a list of their own. If you did not get in, the line is
# still good: knock it again.
#
# The journal warns when three are left. Then make more lines and append them on both
# sides, and reload.
#
# What it costs: when the list is used up, nobody gets in. Keep another way: `trusted`,
# or the provider's console. Who overhears a sequence can do nothing with it.

door "ssh" {
  ports              = [22]
  one_time_sequences = "/var/lib/knockwall/ssh-sequences"
  seq_timeout        = "10s"
  window             = "30s"
}
