# Mistakes in a block of a method.
host "example.org" {
  otp {
    port        = "2000/tcp"
    open_secret = file("/no/such/folder/secret")
  }
  source = "0.0.0.0"
}
