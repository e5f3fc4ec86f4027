door "ssh" {
  ports    = [22]
  sequence = [4118, "27917/udp", 1847]
}

door "web" {
  ports    = ["4100-4120/tcp"]
  sequence = [9100, "20120/udp", 501]
}
