door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
}
share {
  group       = "all of them"
  name        = "host.example.org"
  servers     = ["nats://nats1.example.org:4222", "tls://user:geheim@nats2.example.org", "https://nats3.example.org", "tls://", "nats://127.0.0.1:4222"]
  doors       = ["2nd"]
  credentials = "nats.creds"
  nkey        = "SUAGMJH5XLGZKQQWAWKRZJIGMOU4HPFUYLXJMXOO5NLFEO2OOQJ5LPRDPM"
  tls {
    ca   = "ca.pem"
    cert = "/etc/knockwall.secrets/cert.pem"
  }
  tls {}
}
share {
}
