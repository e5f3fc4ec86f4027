door "two" {
  ports              = [22]
  sequence           = [4113, "27911/udp", 1840]
  one_time_sequences = "/nonexistent/list"
}

door "three" {
  ports              = [23]
  sequence           = [4113, "27911/udp", 1840]
  one_time_sequences = null
  rolling {
    secret = env("KNOCKWALL_TEST_SECRET")
  }
}

door "none" {
  ports          = [24]
  close_sequence = [1840, "27911/udp", 4113]
}

door "same" {
  ports          = [25]
  sequence       = [4113, "27911/udp", 1840]
  close_sequence = [4113, "27911/udp", "1840/tcp"]
}

door "empty" {
  ports          = [26]
  sequence       = [4113, "27911/udp", 1840]
  close_sequence = []
}

door "wrong" {
  ports          = [27]
  sequence       = [4113, "27911/udp", 1840]
  close_sequence = [0, "1-2", "3/icmp", [4], 2 + 3]
}

door "text" {
  ports          = [28]
  sequence       = [4113, "27911/udp", 1840]
  close_sequence = "1840"
}

door "palindrome" {
  ports          = [29]
  sequence       = [4113, "27911/udp", 4113]
  close_sequence = [4113, "27911/udp", 4113]
}
