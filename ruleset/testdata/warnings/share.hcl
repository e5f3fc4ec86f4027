door "ssh" {
  ports    = [22]
  sequence = [4118, "27917/udp", 1847]
}
share {
  group       = "prod"
  servers     = ["tls://nats1.example.org:4222", "tls://[2001:db8::7]"]
  doors       = ["ssh", "web"]
  credentials = "/etc/knockwall.secrets/nats.creds"
}
