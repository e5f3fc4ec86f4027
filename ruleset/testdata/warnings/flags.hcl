door "manual" {
  ports     = [22]
  sequence  = ["22222/udp", 3333, "4444/udp"]
  tcp_flags = ["syn", "ack"]
}

door "fin" {
  ports     = [25]
  sequence  = [26217, "4312/udp", 9911]
  tcp_flags = ["fin", "!ack"]
}

# Its TCP flags do not matter.
door "udp" {
  ports     = [26]
  sequence  = ["26218/udp", "4313/udp", "9912/udp"]
  tcp_flags = ["fin"]
}

door "closed" {
  ports          = [27]
  sequence       = ["26219/udp", "4314/udp", "9913/udp"]
  close_sequence = ["9914/udp", "4315/udp", 26220]
  tcp_flags      = ["ack"]
}

door "ordinary" {
  ports     = [28]
  sequence  = [26221, 4316, 9915]
  tcp_flags = ["syn", "!fin", "!rst"]
}
