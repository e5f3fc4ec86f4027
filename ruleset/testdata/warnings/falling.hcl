door "ssh" {
  ports    = [22]
  sequence = ["27917/udp", 4118, 1847]
}
