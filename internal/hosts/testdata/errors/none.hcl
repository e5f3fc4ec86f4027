# A host without a way to knock.
host "example.org" {
  address = "203.0.113.7"
}
