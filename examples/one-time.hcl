# ssh behind a list of sequences. Each sequence opens the door once.
#
# This is for one person, who can carry the list as a file or on a sheet of paper. Each
# line is a sequence. Make a hundred of them, in a place where the daemon can cross out
# used lines:
#
#   for i in $(seq 100); do shuf -i 1024-65535 -n 4 | paste -sd,; done |
#     sudo install -o knockwall -g knockwall -m 0600 /dev/stdin /var/lib/knockwall/ssh-sequences
#
# Copy the list to the client over a safe connection. On the client, knock with the first
# line that is not crossed out. When you are in, cross out that line there too:
#
#   knockwall knock server.example.org $(grep -m 1 '^[^#]' ~/ssh-sequences | tr , ' ') && ssh server.example.org
#   sed -i '0,/^[^#]/s//#/' ~/ssh-sequences
#
# Only the next line opens the door, so two people with one list get in each other's way.
# Give each person a door and a list of their own. If you did not get in, the line is still
# good: knock again with it.
#
# The journal warns when three lines are left. Then make more lines, append them on both
# sides, and reload.
#
# What it costs: when the list is used up, nobody gets in. Keep another way in: `trusted`,
# or the provider's console. An overheard sequence is useless.

door "ssh" {
  ports              = [22]
  one_time_sequences = "/var/lib/knockwall/ssh-sequences"
  seq_timeout        = "10s"
  window             = "30s"
}
