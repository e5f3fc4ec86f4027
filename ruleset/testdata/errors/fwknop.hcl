door "bare" {
  ports = [22]
  fwknop "alice" {}
}

door "nobody" {
  ports = [23]
  fwknop {
    key      = env("KNOCKWALL_TEST_KEY")
    hmac_key = env("KNOCKWALL_TEST_HMAC_KEY")
  }
}

door "two" {
  ports = [24]
  fwknop "alice" "bob" {
    key      = env("KNOCKWALL_TEST_KEY")
    hmac_key = env("KNOCKWALL_TEST_HMAC_KEY")
  }
}

door "twice" {
  ports = [25]
  fwknop "alice" {
    key      = env("KNOCKWALL_TEST_KEY")
    hmac_key = env("KNOCKWALL_TEST_HMAC_KEY")
  }
  fwknop "alice" {
    key      = env("KNOCKWALL_TEST_KEY")
    hmac_key = env("KNOCKWALL_TEST_KEY")
  }
  fwknop "bob" {
    key      = env("KNOCKWALL_TEST_KEY")
    hmac_key = env("KNOCKWALL_TEST_HMAC_KEY")
  }
}

door "ports" {
  ports    = [26, "51820/udp"]
  sequence = [4113, "62201/udp", 1840]
  fwknop "default" {
    key      = env("KNOCKWALL_TEST_KEY")
    hmac_key = env("KNOCKWALL_TEST_HMAC_KEY")
  }
  fwknop "guarded" {
    port     = "51820/udp"
    key      = env("KNOCKWALL_TEST_KEY")
    hmac_key = env("KNOCKWALL_TEST_SECRET")
  }
  fwknop "tcp" {
    port     = 62202
    key      = env("KNOCKWALL_TEST_SECRET")
    hmac_key = env("KNOCKWALL_TEST_NO_SECRET")
  }
}

door "values" {
  ports = [27]
  fwknop "alice" {
    port     = "62201-62202/udp"
    key      = env("KNOCKWALL_TEST_HMAC_KEY")
    hmac_key = env("KNOCKWALL_TEST_KEY")
    hmac     = "sha224"
    user     = ""
    source   = "any"
    from     = ["somewhere"]
    expires  = "31.01.2027"
    gpg_key  = "ABCD1234"
  }
  fwknop " " {
    key      = env("KNOCKWALL_TEST_KEY")
    hmac_key = env("KNOCKWALL_TEST_HMAC_KEY")
    from     = []
  }
}

door "gpg" {
  ports = [28]
  fwknop "alice" {
    source         = "signed"
    GPG_DECRYPT_ID = "ABCD1234"
    gpg_decrypt_pw = "qzqz"
    gpg_remote_id  = "00000001"
    hmac_key       = env("KNOCKWALL_TEST_HMAC_KEY")
  }
}
