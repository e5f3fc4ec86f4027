# A port that Docker publishes: docker run --publish 8080:80 …
#
# Write the port that is published on the host, 8080, and not the container's. The
# wall stands before Docker's DNAT, so it sees connections as they were dialled, and
# drops them before Docker has turned them towards the container. ufw cannot do that:
# what Docker forwards never comes to the rules that ufw makes. It is the same for
# IPv6, whether Docker forwards it by DNAT or by its docker-proxy, and for Podman.
#
#   knockwall knock server.example.org 18422 3391/udp 29760 && curl http://server.example.org:8080
#
# Choose your own sequence. Nothing has to be changed in Docker.
#
# What it costs: containers that use the published port by this host's address have
# to knock as well. Those that talk to each other on a network of Docker's own do
# not, and need no published port. If that is not enough, guard the port on the
# outer interface only, as shown below; it is bare on all others then.

door "container" {
  ports    = [8080]
  sequence = [18422, "3391/udp", 29760]
  window   = "1m"

  # interfaces = ["eth0"]
}
