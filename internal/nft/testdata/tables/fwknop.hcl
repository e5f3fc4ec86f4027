# Datagrams of several sizes, by their first byte, of persons at two ports.
door "ssh" {
  ports = [22]
  fwknop "alice" {
    key      = "9uBaXTpu7gZxzxJWCBcc2jajIavpXPA847GX1ZYYGrY="
    hmac_key = "TPZ3jmyNthUPxqzFl0NIQmlMZfa+ZSSiJZS3F6f6xhS/+39iK2GSvhGKOVUd6iSV+5GoiTT1dg+Pcrps3bC9oQ=="
  }
  fwknop "bob" {
    port     = "5000/udp"
    key      = "9uBaXTpu7gZxzxJWCBcc2jajIavpXPA847GX1ZYYGrY="
    hmac_key = "+39iK2GSvhGKOVUd6iSV+5GoiTT1dg+Pcrps3bC9oQ=="
    hmac     = "sha512"
  }
}
