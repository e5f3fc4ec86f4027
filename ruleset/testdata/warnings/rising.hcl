door "ssh" {
  ports    = [22]
  sequence = [1847, 4118, "27917/udp"]
}
