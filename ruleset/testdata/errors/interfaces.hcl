door "ssh" {
  ports      = [22]
  sequence   = [4113, "27911/udp", 1840]
  interfaces = [
    "any",
    "*",
    "tun+",
    "wg%d",
    "eth0,wlan0",
    " eth0",
    "!eth0",
    "eth[01]",
    "*0",
    "eth0:1",
    "192.0.2.1",
    "192.0.2.0/24",
    "52:54:00:12:34:56",
    "enp0s31f6-uplink",
    "lo*",
  ]
}
