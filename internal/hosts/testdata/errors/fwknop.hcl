host "example.org" {
  key = "x"
  fwknop {
    key      = "aGlwamF6eg=="
    hmac_key = "not base64"
    hmac     = "sha224"
    access   = [22, "x"]
    port     = "62201/tcp"
    timeout  = "25h"
    gpg      = true
  }
}
