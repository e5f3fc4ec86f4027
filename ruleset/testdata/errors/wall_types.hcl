wall {
  table       = ["knockwall"]
  nflog_group = true
  queue       = -1
  interfaces  = "eth0"
  trusted     = []
  on_stop     = keep
  hold        = 200
  reorder     = "-20ms"
  max_sources = 1e999999
}
