wall {
  trusted = [192.168.0.100]
}
