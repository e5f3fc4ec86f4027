door "ssh" {
  ports = ["ÿþ"]
}
