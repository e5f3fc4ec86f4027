# Knocks that run a command.
#
# Commands are run as they stand here: a program and its arguments, without a shell.
# ${door}, ${source} and ${port} are put in; they are in the environment, too, as
# KNOCKWALL_DOOR and so on. ${port} is that of the last knock, and nothing where the
# door was opened by hand. What a command prints is in the journal.
#
# They run within the service: as its user, who is not root, and in its sandbox, from
# which no network and few folders can be reached. To log something, or to tell another
# program over a Unix socket, that is enough. For more, let the command leave a file in
# /run/knockwall, and another unit do the work when it sees it:
#
#   /etc/systemd/system/backup.path
#       [Path]
#       PathChanged=/run/knockwall/backup-wanted
#       [Install]
#       WantedBy=multi-user.target
#
#   /etc/systemd/system/backup.service
#       [Service]
#       Type=oneshot
#       ExecStart=/usr/local/sbin/backup
#
#   sudo systemctl enable --now backup.path
#
# Choose your own sequences.
#
# What it costs: who knows the knocks can run the command, as often as they like. Let
# it be something that may be done twice, and trust none of what it is given.

# A door need not have ports. This one makes a backup:
#
#   knockwall knock server.example.org 21964/udp 6532 28417

door "backup" {
  sequence = ["21964/udp", 6532, 28417]
  window   = "1m"

  on_open {
    command = ["touch", "/run/knockwall/backup-wanted"]
  }
}

# This one tells the system's log for whom it opens and closes. on_close is run when
# the window has ended, however it has; if no daemon runs then, by the next one.
#
#   knockwall knock server.example.org 3928 16701/udp 10243 && ssh server.example.org

door "ssh" {
  ports    = [22]
  sequence = [3928, "16701/udp", 10243]
  window   = "30s"

  on_open {
    command = ["logger", "--tag", "knockwall-${door}", "open for ${source}, by ${port}"]
  }
  on_close {
    command = ["logger", "--tag", "knockwall-${door}", "closed for ${source}"]
    timeout = "5s"
  }
}
