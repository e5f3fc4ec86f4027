door "ssh" {
  ports = [22]
  rolling {
    secret = env("KNOCKWALL_TEST_SECRET")
  }
  rolling {
    secret = env("KNOCKWALL_TEST_SECRET")
  }
}

door "vpn" {
  ports = ["51820/udp"]
  otp {
    port        = "2000/udp"
    open_secret = env("KNOCKWALL_TEST_SECRET")
  }
  otp {
    port        = "2001/udp"
    open_secret = env("KNOCKWALL_TEST_SECRET")
  }
}

door "web" {
  sequence = [4113, "27911/udp", 1840]
  on_open {
    command = ["/bin/sh"]
  }
  on_open {
    command = ["/bin/sh"]
  }
}

door "mail" {
  ports    = [25]
  sequence = [4113, "27911/udp", 1840]
  otp "label" {
    shell = true
  }
}
