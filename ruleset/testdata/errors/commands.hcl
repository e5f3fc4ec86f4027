door "nothing" {
  sequence = [4113, "27911/udp", 1840]
  on_close {
    command = ["/bin/sh"]
  }
}

door "bare" {
  sequence = [4113, "27911/udp", 1840]
  on_open {
  }
}

door "text" {
  sequence = [4113, "27911/udp", 1840]
  on_open {
    command = "/bin/sh -c true"
  }
}

door "empty" {
  sequence = [4113, "27911/udp", 1840]
  on_open {
    command = []
  }
}

door "relative" {
  sequence = [4113, "27911/udp", 1840]
  on_open {
    command = ["bin/sh"]
  }
  on_close {
    command = ["../sh"]
  }
}

door "folder" {
  sequence = [4113, "27911/udp", 1840]
  on_open {
    command = ["/bin/"]
  }
  on_close {
    command = [""]
  }
}

door "unknown" {
  sequence = [4113, "27911/udp", 1840]
  on_open {
    command = ["/bin/sh", "${address}", "a ${source.x} b"]
  }
  on_close {
    command = ["/bin/sh", "${1 + 1}", "${upper(door)}", "%{if door}a%{endif}", "${source[0]}", source, upper("a")]
  }
}

door "chosen" {
  sequence = [4113, "27911/udp", 1840]
  on_open {
    command = ["/usr/lib/${door}"]
  }
  on_close {
    command = ["${port}", "a"]
  }
}

door "nul" {
  sequence = [4113, "27911/udp", 1840]
  on_open {
    command = ["/bin/sh", "a\u0000b"]
  }
  on_close {
    command = ["/bin/sh", "${door}\u0000", ["-c"], null]
  }
}

door "timeout" {
  sequence = [4113, "27911/udp", 1840]
  on_open {
    command = ["/bin/sh"]
    timeout = "99ms"
  }
  on_close {
    command = ["/bin/sh"]
    timeout = "10m1s"
  }
}

door "many" {
  sequence = [4113, "27911/udp", 1840]
  on_open {
    command = [
      "/bin/sh", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
      "17", "18", "19", "20", "21", "22", "23", "24", "25", "26", "27", "28", "29", "30", "31", "32",
      "33", "34", "35", "36", "37", "38", "39", "40", "41", "42", "43", "44", "45", "46", "47", "48",
      "49", "50", "51", "52", "53", "54", "55", "56", "57", "58", "59", "60", "61", "62", "63", "64",
    ]
  }
}
