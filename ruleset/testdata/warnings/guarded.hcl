door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
}

door "web" {
  ports    = ["4100-4120/tcp"]
  sequence = [9100, "20120/udp", 501]
}
