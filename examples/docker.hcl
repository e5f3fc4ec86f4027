# A port that Docker publishes: docker run --publish 8080:80 …
#
# Write the port that is published on the host, 8080, not the port of the container. The
# wall stands before Docker's DNAT. So it sees connections to the published port, and
# drops them before Docker redirects them to the container. ufw cannot do this: packets
# that Docker forwards never reach ufw's rules. The same holds for IPv6, whether Docker
# forwards it by DNAT or by its docker-proxy, and for Podman.
#
#   knockwall knock server.example.org 18422 3391/udp 29760 && curl http://server.example.org:8080
#
# Choose your own sequence. Docker's configuration stays as it is.
#
# What it costs: containers that use the published port at this host's address must knock
# too. Containers that talk to each other on one of Docker's own networks need not knock,
# and need no published port. If that is not enough, guard the port on the outer interface
# only, as shown below. The port is then open on all other interfaces.

door "container" {
  ports    = [8080]
  sequence = [18422, "3391/udp", 29760]
  window   = "1m"

  # interfaces = ["eth0"]
}
