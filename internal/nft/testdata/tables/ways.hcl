# Every way to knock.
door "otp" {
  ports         = [22]
  source_prefix = { ipv4 = 24, ipv6 = 64 }
  otp {
    port         = "2000/udp"
    open_secret  = "hipjazz"
    close_secret = "superawesome"
  }
}

door "rolling" {
  ports          = [443, "443/udp"]
  close_sequence = [4113, "27911/udp", 1840]
  source_prefix  = { ipv4 = 24, ipv6 = 64 }
  penalty        = "2m"
  rolling {
    secret = "correct horse battery staple"
    step   = "1h"
  }
  otp {
    port        = "2001/udp"
    open_secret = "hipjazz"
  }
}

door "listed" {
  ports          = [25]
  sequence       = [5113, "28911/udp", 2840]
  close_sequence = [2840, "28911/udp", 5113]
  traps          = ["5000-5112", "5114-5200", "28910/udp", 2839]
}

door "untrapped" {
  ports    = [110]
  sequence = [6113, "29911/udp", 3840]
  traps    = 0
}

door "portless" {
  sequence = [7113, "30911/udp", 4840]
  traps    = 3
  to       = ["192.0.2.1", "2001:db8::1"]
  on_open {
    command = ["/bin/sh", "-c", "true"]
  }
}

door "reject" {
  ports      = ["8000-8010", "53/udp"]
  sequence   = [8113, "31911/udp", 5840]
  closed     = "reject"
  traps      = 8
  interfaces = ["wan0"]
}

door "portless-otp" {
  otp {
    port        = "2002/udp"
    open_secret = "hipjazz"
  }
  on_open {
    command = ["/bin/sh", "-c", "true"]
  }
}
