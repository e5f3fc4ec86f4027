# Each of these would guard nothing at all.
door "nowhere" {
  ports      = []
  sequence   = [4113, "27911/udp", 1840]
  interfaces = ["eth0", "lo"]
  to         = []
}
