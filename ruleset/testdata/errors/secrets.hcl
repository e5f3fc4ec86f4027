door "a" {
  ports = [22]
  otp {
    port         = "2000/udp"
    open_secret  = vault("vpn")
    close_secret = file()
  }
}

door "b" {
  ports = [22]
  otp {
    port         = "2000/udp"
    open_secret  = file("/nonexistent/a", "/nonexistent/b")
    close_secret = file(["/nonexistent/a"]...)
  }
}

door "c" {
  ports = [22]
  otp {
    port         = "2000/udp"
    open_secret  = file(env("HOME"))
    close_secret = file("${1 + 1}")
  }
}

door "d" {
  ports = [22]
  otp {
    port         = "2000/udp"
    open_secret  = env("A") == "" ? "b" : "c"
    close_secret = [env("A")]
  }
}

door "e" {
  ports = [22]
  otp {
    port         = "2000/udp"
    open_secret  = hipjazz
    close_secret = ""
  }
}

door "f" {
  ports = [22]
  otp {
    port         = "2000/udp"
    open_secret  = credential("vpn/open")
    close_secret = credential("..")
  }
}

door "g" {
  ports = [22]
  otp {
    port         = "2000/udp"
    open_secret  = credential("vpn-open")
    close_secret = file("vpn.key")
  }
}

door "h" {
  ports = [22]
  otp {
    port         = "2000/udp"
    open_secret  = file("/nonexistent/vpn.key")
    close_secret = env("KNOCKWALL_TEST_NO_SECRET")
  }
}

door "i" {
  ports = [22]
  otp {
    port         = "2000/udp"
    open_secret  = file(22)
    close_secret = env("")
  }
}

door "j" {
  ports = [22]
  otp {
    port         = "2000/udp"
    open_secret  = env("KNOCKWALL_TEST_SECRET"
  }
}
