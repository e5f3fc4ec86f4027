door "short" {
  ports = [22]
  rolling {
    secret = env("KNOCKWALL_TEST_SHORT_SECRET")
  }
}

door "few" {
  ports = [443]
  rolling {
    secret = env("KNOCKWALL_TEST_SECRET")
    length = 2
    ports  = "20000-20998"
  }
}

door "wide" {
  ports = ["25000/udp"]
  rolling {
    secret = env("KNOCKWALL_TEST_SECRET")
    ports  = "20000-29999/udp"
  }
}
