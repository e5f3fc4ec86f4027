# Attributes of a signed knock at another way.
host "example.org" {
  knock  = [70000]
  door   = "ssh"
  source = "auto"
}
