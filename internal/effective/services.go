package effective

import (
	"slices"

	"github.com/knockwall/knockwall/internal/packet"
)

// services are the ranges of ports, first and last, of widely used services, from the
// IANA registry and beyond it. Clients often try these ports. None of them is
// chosen as a trap, as the service may start after the daemon, or run on another host.
var services = [][2]uint16{
	{20, 25}, {43, 43}, {53, 53}, {67, 70}, {79, 80}, {88, 88}, {109, 111}, {113, 113},
	{119, 119}, {123, 123}, {135, 139}, {143, 143}, {161, 162}, {179, 179}, {389, 389},
	{443, 445}, {464, 465}, {500, 500}, {512, 515}, {543, 548}, {554, 554}, {563, 563},
	{587, 587}, {631, 631}, {636, 636}, {853, 853}, {860, 860}, {873, 873}, {902, 903},
	{989, 995}, {1080, 1080}, {1194, 1194}, {1433, 1434}, {1521, 1521}, {1701, 1701},
	{1723, 1723}, {1812, 1813}, {1883, 1883}, {1900, 1900}, {2049, 2049}, {2222, 2222},
	{2375, 2380}, {3000, 3001}, {3128, 3128}, {3260, 3260}, {3268, 3269}, {3306, 3306},
	{3389, 3389}, {3478, 3479}, {4369, 4369}, {4500, 4500}, {5000, 5001}, {5060, 5061},
	{5222, 5223}, {5269, 5269}, {5349, 5353}, {5432, 5432}, {5601, 5601}, {5671, 5672},
	{5900, 5903}, {5984, 5986}, {6000, 6002}, {6379, 6379}, {6443, 6443}, {6660, 6669},
	{6697, 6697}, {6881, 6889}, {8000, 8010}, {8080, 8090}, {8096, 8096}, {8123, 8123},
	{8200, 8200}, {8333, 8333}, {8400, 8400}, {8443, 8444}, {8500, 8501}, {8530, 8531},
	{8834, 8834}, {8883, 8883}, {8888, 8888}, {9000, 9001}, {9042, 9042}, {9090, 9093},
	{9100, 9100}, {9200, 9200}, {9300, 9300}, {9418, 9418}, {9443, 9443}, {10000, 10000},
	{10050, 10051}, {10250, 10250}, {11211, 11211}, {15672, 15672}, {19132, 19133},
	{25565, 25565}, {27015, 27018}, {32400, 32400}, {41641, 41641}, {51820, 51821},
}

// Services returns the ports of widely used services, for both protocols.
func Services() (ports []packet.PortRange) {
	for _, r := range services {
		for _, protocol := range []packet.Protocol{packet.TCP, packet.UDP} {
			ports = append(ports, packet.PortRange{First: r[0], Last: r[1], Protocol: protocol})
		}
	}
	return ports
}

// isService reports whether a port is in services, for either protocol.
func isService(p packet.Port) bool {
	return slices.ContainsFunc(services, func(r [2]uint16) bool { return r[0] <= p.Number && p.Number <= r[1] })
}
