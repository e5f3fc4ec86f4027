door "ssh" {
  ports          = [22, 1999]
  sequence       = [4113, "27911/udp", 1840]
  close_sequence = [1840, 1999, 4113]
}
