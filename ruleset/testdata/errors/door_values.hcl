door "ssh" {
  ports           = [0, 65536, 22.5, "22/sctp", "8010-8000/tcp", "ssh", "22-/tcp", ""]
  sequence        = [4113, "27911/icmp", "7000-7010", -1]
  seq_timeout     = "2h"
  window          = "30"
  tcp_flags       = ["syn", "!ack", "xmas", "ACK"]
  max_connections = 0
  closed          = "tarpit"
  on_failure      = "reject"
  interfaces      = []
  to              = ["host.example.org"]
  trusted         = ["198.51.100.0/33"]
  source_prefix   = { ipv4 = 33, ipv6 = 0, ipv5 = 1 }
}
