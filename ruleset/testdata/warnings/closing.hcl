door "ssh" {
  ports          = [22, 1999]
  sequence       = [4118, "27917/udp", 1847]
  close_sequence = [1847, 1999, 4118]
}
