door "bare" {
  ports = [22]
  rolling {
  }
}

door "nobody" {
  ports = [23]
  rolling {
    secret = null
  }
}

door "ports" {
  ports = [24]
  rolling {
    secret = env("KNOCKWALL_TEST_SECRET")
    ports  = "20000-70000"
  }
}

door "narrow" {
  ports = [25]
  rolling {
    secret = env("KNOCKWALL_TEST_SECRET")
    length = 8
    ports  = "20000-20015/udp"
  }
}

door "list" {
  ports = [26]
  rolling {
    secret = env("KNOCKWALL_TEST_SECRET")
    ports  = ["20000-29999"]
  }
}

door "fraction" {
  ports = [27]
  rolling {
    secret = env("KNOCKWALL_TEST_SECRET")
    step   = "30500ms"
  }
}

door "short" {
  ports = [28]
  rolling {
    secret = env("KNOCKWALL_TEST_SECRET")
    step   = "4s"
  }
}

door "long" {
  ports = [29]
  rolling {
    secret = env("KNOCKWALL_TEST_SECRET")
    step   = "1h0m1s"
  }
}

door "length" {
  ports = [30]
  rolling {
    secret = env("KNOCKWALL_TEST_SECRET")
    length = 0
  }
}

door "longest" {
  ports = [31]
  rolling {
    secret = env("KNOCKWALL_TEST_SECRET")
    length = 33
  }
}
