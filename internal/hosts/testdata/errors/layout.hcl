# Blocks and attributes in wrong places.
knock = [1001]
door "ssh" {
  ports = [22]
}
host {
  knock = [1001]
}
host "example.org" {
  sequence = [1001]
  rolling "x" {
    secret = "a secret that is not shown"
  }
}
