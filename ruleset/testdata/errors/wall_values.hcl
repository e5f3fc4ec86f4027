wall {
  table       = "no good"
  nflog_group = 65535
  queue       = "many"
  interfaces  = ["eth0", "a-name-of-16-chr", "", "a b", "..", "wan\u001b"]
  trusted     = ["192.0.2.300", "0.0.0.0/0", "::ffff:192.0.2.1", "fe80::1%eth0", 22]
  on_stop     = "leave"
  hold        = "3s"
  reorder     = "soon"
  max_sources = 1.5
  max_windows = 1048577
}

door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
}
