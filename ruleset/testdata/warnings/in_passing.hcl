door "ssh" {
  ports          = [22]
  sequence       = [24113, "27917/udp", 1847]
  close_sequence = [1847, "27917/udp", 24113]
}

door "web" {
  ports    = [443]
  sequence = ["27917/udp", 1847, 1847, "27917/udp"]
}

# Doors may share the beginning of their knocks.
door "prefix" {
  ports    = [80]
  sequence = [24113, "27917/udp", 1847, 31234]
}
