# Mistakes in a host with a signed knock.
host "example.org" {
  identity = "kw1:AAAA"
  key      = "id_ed25519"
  port     = "62201/tcp"
  source   = "mine"
}
