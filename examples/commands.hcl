# Knocks that run a command.
#
# A command is a program and its arguments. No shell runs. knockwall replaces ${door},
# ${source} and ${port}, and sets them in the environment as KNOCKWALL_DOOR and so on.
# ${port} is the port of the last knock. It is empty if an administrator opened the door
# by hand. The output of a command is in the journal.
#
# Commands run inside the service: as its user, which is not root, and in its sandbox,
# which has no network and few folders. This is enough to log something, or to tell
# another program over a Unix socket. If you need more, let the command touch a file in
# /run/knockwall, and let another unit do the work when that happens. The package has
# units for this. One runs a script as root, here /usr/local/sbin/backup, with a network,
# so that it can also send mail or call a webhook:
#
#   sudo systemctl enable --now knockwall-run@backup.path
#
# The command is ["touch", "/run/knockwall/run-backup"], as below. A unit that is started
# when the door opens, and stopped when it closes, such as wiki.service:
#
#   sudo systemctl enable --now knockwall-start@wiki.path knockwall-stop@wiki.path
#
# Then on_open is ["touch", "/run/knockwall/start-wiki"], and on_close is
# ["touch", "/run/knockwall/stop-wiki"]. Knocks during a run of the script do not run it
# once more.
#
# Choose your own sequences.
#
# What it costs: anybody who knows the knocks can run the command, as often as they like.
# Choose a command that may run twice, and do not trust its input.

# A door need not have ports. This one starts a backup:
#
#   knockwall knock server.example.org 21964/udp 6532 28417

door "backup" {
  sequence = ["21964/udp", 6532, 28417]
  window   = "1m"

  on_open {
    command = ["touch", "/run/knockwall/run-backup"]
  }
}

# This one writes to the system log for which source it opens and closes. on_close runs
# when the window has ended, for whatever reason. If no daemon runs at that time, the next
# one runs it.
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
