door "ssh" {
  ports    = [22]
  sequence = [4118, "27917/udp", 1847]
}
