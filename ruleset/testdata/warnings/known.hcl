door "ssh" {
  ports    = [22]
  sequence = [7000, "8000/udp", 9000]
}
