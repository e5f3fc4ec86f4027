door "ssh" {
  ports    = [22]
  sequence = ["27911/udp", 4113, 1840]
}
