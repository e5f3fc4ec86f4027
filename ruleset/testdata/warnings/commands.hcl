door "ssh" {
  sequence = [4118, "27917/udp", 1847]
  on_open {
    command = ["/nonexistent/notify", "${source}"]
  }
  on_close {
    command = ["knockwall-no-such-program"]
  }
}

door "web" {
  sequence = [5113, "28911/udp", 2840]
  on_open {
    command = ["sh", "-c", "true"]
  }
  on_close {
    command = ["/etc/passwd"]
  }
}
