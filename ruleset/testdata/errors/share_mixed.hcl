door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
}
share {
  group   = "prod"
  servers = ["tls://nats1.example.org:4222", "nats://127.0.0.1:4222"]
  nkey    = "/etc/knockwall.secrets/nats.nk"
}
