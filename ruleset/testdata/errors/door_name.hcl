door "my door" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
}

door "" {
  ports    = [23]
  sequence = [4114, "27912/udp", 1841]
}

door "a" {
  ports    = [24]
  sequence = [4115, "27913/udp", 1842]
}

door "a" {
  ports    = [25]
  sequence = [4116, "27914/udp", 1843]
}

door "a-name-that-is-longer-than-32-bytes" {
  ports    = [26]
  sequence = [4117, "27915/udp", 1844]
}
