# The secret is not shown.
host "example.org" {
  otp {
    port        = "2000/tcp"
    open_secret = "a secret that is not shown
  }
}
