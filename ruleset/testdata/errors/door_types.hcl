door "ssh" {
  ports           = 22
  sequence        = "4113"
  seq_timeout     = 5
  window          = null
  tcp_flags       = []
  max_connections = "two"
  closed          = drop
  on_failure      = ["open"]
  interfaces      = [eth0]
  to              = [["192.0.2.1"], true, null]
  trusted         = 198.51
  source_prefix   = 64
}
