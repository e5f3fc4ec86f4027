door "ssh" {
  ports = [22]
  fwknop "alice" {
    key      = env("KNOCKWALL_TEST_SHORT_SECRET")
    hmac_key = env("KNOCKWALL_TEST_HMAC_KEY")
    expires  = "2020-01-31"
  }
}
