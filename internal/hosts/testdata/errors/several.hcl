# A host with two ways to knock.
host "example.org" {
  knock = [1001]
  rolling {
    secret = "a secret that is not shown"
  }
}
