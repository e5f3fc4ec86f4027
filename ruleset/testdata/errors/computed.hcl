door "ssh" {
  ports       = [22/tcp, 20 + 2, 8000-8010]
  sequence    = [for n in [1, 2, 3] : n]
  window      = "${30}s"
  seq_timeout = duration
  closed      = upper("drop")
  tcp_flags   = ["syn", !ack]
}
