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

door "three" {
  ports = [444]
  rolling {
    secret = env("KNOCKWALL_TEST_SECRET")
    length = 3
    ports  = "1024-65535"
  }
}

door "narrow" {
  ports = [445]
  rolling {
    secret = env("KNOCKWALL_TEST_SECRET")
    ports  = "30000-30999"
  }
}
