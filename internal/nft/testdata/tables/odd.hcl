# Two doors before one port, neighbours, overlaps and both families: what a
# listing may join, split or turn around.
wall {
  trusted = ["10.0.0.0/25", "10.0.0.128/25", "10.0.0.7", "192.0.2.1", "192.0.2.2", "2001:db8::/49", "2001:db8:0:8000::/49", "2001:db8::1"]
}

door "inner" {
  ports         = [443, "8000-8010/tcp", 8011, "8005-8020/tcp", "443/udp", "65535/tcp", 1]
  sequence      = [4113, 4113, "4113/udp"]
  tcp_flags     = ["fin", "psh", "urg", "!syn"]
  to            = ["203.0.113.0/24", "203.0.113.7", "2001:db8:1::/64"]
  source_prefix = { ipv4 = 8, ipv6 = 1 }
}

door "outer-2" {
  ports         = [443, "60000-65535/udp"]
  sequence      = ["53/udp", "54/udp", 443]
  seq_timeout   = "90s"
  window        = "24h"
  tcp_flags     = ["!ack"]
  closed        = "reject"
  interfaces    = ["veth.10", "br-0@x", "ppp*"]
  to            = ["198.51.100.9", "198.51.100.11"]
  trusted       = ["2001:db8:2::/48"]
  source_prefix = { ipv4 = 31, ipv6 = 127 }
}

door "open" {
  ports       = ["53/udp"]
  sequence    = [1021, "1022/udp", 1020]
  seq_timeout = "1500ms"
  window      = "100ms"
  tcp_flags   = ["syn"]
  closed      = "reject"
  on_failure  = "open"
  to          = ["2001:db8:3::1", "2001:db8:3::2"]
}

door "none" {
  ports           = [2222]
  sequence        = [32100, 1234, 31000]
  tcp_flags       = ["rst", "ack", "syn", "fin", "psh", "urg"]
  on_failure      = "open"
  max_connections = 1000
  source_prefix   = { ipv6 = 48 }
}
