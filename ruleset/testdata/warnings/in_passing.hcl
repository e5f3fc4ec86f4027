door "ssh" {
  ports          = [22]
  sequence       = [24113, "27911/udp", 1840]
  close_sequence = [1840, "27911/udp", 24113]
}

door "web" {
  ports    = [443]
  sequence = ["27911/udp", 1840, 1840, "27911/udp"]
}

# Doors may share the beginning of their knocks.
door "prefix" {
  ports    = [80]
  sequence = [24113, "27911/udp", 1840, 31234]
}
