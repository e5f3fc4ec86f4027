# A private identity does not belong here, and is not shown.
host "*" {
  identity = "kw1-private:NotARealSecret"
  door     = "ssh"
  key      = ["a"]
}
