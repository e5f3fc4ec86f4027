door "bare" {
  ports = [22]
  otp {}
}

door "tcp" {
  ports = [23]
  otp {
    port        = 2000
    open_secret = env("KNOCKWALL_TEST_SECRET")
  }
}

door "knock" {
  ports    = [24]
  sequence = [4113, "27911/udp", 1840]
  otp {
    port        = "27911/udp"
    open_secret = env("KNOCKWALL_TEST_SECRET")
  }
}

door "closing" {
  ports          = [25]
  sequence       = [4113, "27911/udp", 1840]
  close_sequence = [1840, "27912/udp", 4113]
  otp {
    port        = "27912/udp"
    open_secret = env("KNOCKWALL_TEST_SECRET")
  }
}

door "rolling" {
  ports = [26]
  rolling {
    secret = env("KNOCKWALL_TEST_SECRET")
    ports  = "20000-29999/udp"
  }
  otp {
    port        = "29999/udp"
    open_secret = env("KNOCKWALL_TEST_SECRET")
  }
}

door "guarded" {
  ports = ["51820-51830/udp"]
  otp {
    port        = "51821/udp"
    open_secret = env("KNOCKWALL_TEST_SECRET")
  }
}

door "range" {
  ports = [27]
  otp {
    port        = "2000-2001/udp"
    open_secret = env("KNOCKWALL_TEST_SECRET")
  }
}

door "long" {
  ports = [28]
  otp {
    port         = "2000/udp"
    open_secret  = env("KNOCKWALL_TEST_LONG_SECRET")
    close_secret = env("KNOCKWALL_TEST_LONG_SECRET")
  }
}

door "same" {
  ports = [29]
  otp {
    port         = "2000/udp"
    open_secret  = env("KNOCKWALL_TEST_SECRET")
    close_secret = env("KNOCKWALL_TEST_SECRET")
  }
}

door "skew" {
  ports = [30]
  otp {
    port        = "2000/udp"
    open_secret = env("KNOCKWALL_TEST_SECRET")
    skew        = "10m1s"
  }
}

door "before" {
  ports = [31]
  otp {
    port        = "2000/udp"
    open_secret = env("KNOCKWALL_TEST_SECRET")
    skew        = "-1s"
  }
}
