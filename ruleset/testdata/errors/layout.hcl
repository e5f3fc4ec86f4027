door "ssh" {
	ports	=	[ 22,	"99999" ] # tabs
	sequence = [
		4113,
		"27911/udp",
		"täglich", "sechzig/udp"
	]
	source_prefix = [
		32,
	]
}
