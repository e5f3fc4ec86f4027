# Three knocks from the ports that are guessed first. One knock more, or one from other ports, is enough.
door "ssh" {
  ports    = [22]
  sequence = [4118, "9999/udp", 1847]
}

door "rising" {
  ports    = [23]
  sequence = [1841, 4114, "7911/udp"]
}

door "web" {
  ports    = [443]
  sequence = [4118, "10000/udp", 1847]
}

door "vpn" {
  ports    = ["51820/udp"]
  sequence = [4118, "9999/udp", 1847, 5022]
}
