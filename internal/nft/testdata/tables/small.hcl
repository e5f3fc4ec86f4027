door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
}
