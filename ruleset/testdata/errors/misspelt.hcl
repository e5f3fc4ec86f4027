door "ssh" {
  ports    = [22]
  sequense = [4113, "27911/udp", 1840]
}

door "web" {
  prots = [443]
  kyes {
    authorized = ["/etc/knockwall.d/people"]
  }
}

door "vpn" {
  ports = ["51820/udp"]
  rolling {
    ports = "5000-6000"
    secrit = env("KNOCKWALL_TEST_SECRET")
  }
  on_open {
    comand = ["/usr/bin/logger", "open"]
  }
}

share {
  grup    = "prod"
  servers = ["tls://nats1.example.org:4222"]
  creds   = "/etc/knockwall.secrets/nats.creds"
}

# What resembles nothing hides no other error.
door "admin" {
  ports  = [8443]
  colour = "red"
}
