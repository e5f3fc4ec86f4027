door "ssh" {
  ports    = [22]
  sequence = [4113, 1840
