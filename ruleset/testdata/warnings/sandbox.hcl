door "ufw" {
  ports    = [22]
  sequence = [24113, "27917/udp", 1847]

  on_open {
    command = ["/bin/sh", "-c", "logger open; ufw allow from $KNOCKWALL_SOURCE"]
  }
  on_close {
    command = ["/bin/sh", "-c", "logger shut"]
  }
}
