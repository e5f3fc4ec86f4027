door "ssh" {
  ports    = [22 23]
  sequence = [4113, "27911/udp", 1840]
  window   = "soon"
}
