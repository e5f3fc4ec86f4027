wall {
  table      = "house"
  hold       = "200ms"
  interfaces = ["eth0"]
  trusted    = ["192.0.2.1"]
  identity   = "/etc/knockwall.d/identity"
}

wall {
  queue      = 7200
  hold       = "0.2s"
  interfaces = ["eth0", "eth1"]
  trusted    = ["192.0.2.2"]
  identity   = env("KNOCKWALL_TEST_SECRET")
}

wall {
  table = "castle"
  queue = 7201
}
