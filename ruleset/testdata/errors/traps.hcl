door "many" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  traps    = 1025
  penalty  = "999ms"
}

door "few" {
  ports    = [23]
  sequence = [4113, "27911/udp", 1840]
  traps    = -1
  penalty  = "25h"
}

door "text" {
  ports    = [24]
  sequence = [4113, "27911/udp", 1840]
  traps    = "some"
  penalty  = 30
}

door "wrong" {
  ports    = [25]
  sequence = [4113, "27911/udp", 1840]
  traps    = [0, "2-1", "x"]
}

door "knock" {
  ports          = [26]
  sequence       = [4113, "27911/udp", 1840]
  close_sequence = [5000, 5002, 5001]
  traps          = ["4000-4200", 5002, 1841]
}

door "guarded" {
  ports    = ["8000-8010"]
  sequence = [4113, "27911/udp", 1840]
  traps    = ["8010-8020"]
}

door "password" {
  ports    = [27]
  sequence = [4113, "27911/udp", 1840]
  traps    = ["2000-2010/udp"]
  otp {
    port        = "2000/udp"
    open_secret = env("KNOCKWALL_TEST_SECRET")
  }
}

door "otp" {
  ports = [28]
  traps = 64
  otp {
    port        = "2000/udp"
    open_secret = env("KNOCKWALL_TEST_SECRET")
  }
}

door "otps" {
  ports = [29]
  traps = [1, 2, 3]
  otp {
    port        = "2000/udp"
    open_secret = env("KNOCKWALL_TEST_SECRET")
  }
}
