door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
}
share {
  doors   = []
  servers = ["tls://nats1.example.org"]
  subject = "x"
}
