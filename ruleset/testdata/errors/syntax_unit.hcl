door "ssh" {
  ports    = [22]
  window   = 30s
  sequence = [4113, "27911/udp", 1840]
}
