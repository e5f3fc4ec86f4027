# Every attribute, none at its default.
wall {
  table       = "house"
  nflog_group = 7200
  queue       = 7300
  interfaces  = ["wan0"]
  trusted     = ["192.168.0.100", "2001:db8::/48"]
  on_stop     = "remove"
  hold        = "300ms"
  reorder     = "30ms"
  max_sources = 1024
  max_windows = 4096
}

door "ssh" {
  ports           = [22, "2200-2210/tcp"]
  sequence        = [4113, "27911/udp", 1840]
  seq_timeout     = "7s"
  window          = "1m30s"
  tcp_flags       = ["syn", "!ack", "!rst"]
  max_connections = 3
  closed          = "reject"
  on_failure      = "open"
  interfaces      = ["wan1", "wan0"]
  to              = ["203.0.113.7", "2001:db8:1::7"]
  trusted         = ["198.51.100.0/24"]
  source_prefix   = { ipv4 = 24, ipv6 = 64 }
  penalty_prefix  = { ipv6 = 56 }
  udp_timeout     = "2m"
}

door "vpn" {
  ports    = ["51820/udp"]
  sequence = ["2000/udp", 2001, "1999/udp"]
  closed   = "reject"
}
