door "ssh" {
  ports    = [22]
  sequence = [1840, 4113, "27911/udp"]
}
