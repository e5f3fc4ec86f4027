colour = "red"

wall {
  tabel = "knockwall"
}

door "ssh" {
  port     = [22]
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  sequence = [1, 2, 3]
  knock { }
}

gate "ssh" {
}
