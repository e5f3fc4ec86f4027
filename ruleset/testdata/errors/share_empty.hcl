share {
  tls {
    key = "/etc/knockwall.secrets/key.pem"
  }
}
