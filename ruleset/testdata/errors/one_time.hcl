door "relative" {
  ports              = [22]
  one_time_sequences = "list"
}

door "missing" {
  ports              = [23]
  one_time_sequences = "/nonexistent/list"
}

door "folder" {
  ports              = [24]
  one_time_sequences = "/"
}

door "lists" {
  ports              = [25]
  one_time_sequences = ["/nonexistent/list"]
}

door "computed" {
  ports              = [26]
  one_time_sequences = file("/nonexistent/list")
}
