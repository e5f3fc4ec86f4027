package migrate

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// routerOS reads an export of MikroTik RouterOS whose firewall adds sources to address lists.
func routerOS(lines []line) *recipe {
	r := &recipe{what: "this is an export of MikroTik RouterOS"}
	joined := ""
	for _, l := range lines {
		if begin, ok := strings.CutSuffix(l.text, `\`); ok {
			joined += begin
			continue
		}
		words := wordsIn(joined + l.text)
		joined = ""
		if !slices.Contains(words, "add") {
			continue
		}
		values := map[string]string{}
		for _, word := range words {
			if key, value, ok := strings.Cut(word, "="); ok {
				values[key] = value
			}
		}
		protocol, _ := protocols(values["protocol"])
		if protocol == nil {
			protocol = onlyTCP
		}
		ports, ok := portList(values["dst-port"], "-", protocol)
		from := stage{set: values["src-address-list"]}
		if strings.HasPrefix(from.set, "!") || values["disabled"] == "yes" {
			continue
		}
		also := routerTerms(values)
		switch values["action"] {
		case "add-src-to-address-list":
			lasts, _ := routerTime(values["address-list-timeout"])
			if port, isOne := onePort(ports); ok && isOne {
				r.moves = append(r.moves, move{port: port, from: from, to: values["address-list"], lasts: lasts, chain: values["chain"], terms: also})
			}
		case "accept", "":
			if from.set != "" && (values["chain"] == "input" || values["chain"] == "") {
				r.admits = append(r.admits, admit{l.number, ports, from, values["chain"], also})
			}
		case "jump":
			r.jump(values["jump-target"], jump{values["chain"], also})
		}
	}
	r.reach()
	return r
}

// routerKeys are the properties of a rule of RouterOS that are read, or that change nothing.
var routerKeys = []string{"action", "address-list", "address-list-timeout", "chain", "comment", "connection-state", "disabled", "dst-address", "dst-port",
	"in-interface", "in-interface-list", "jump-target", "log", "log-prefix", "place-before", "protocol", "src-address-list"}

// routerTerms reads what else a rule of RouterOS asks for.
func routerTerms(values map[string]string) terms {
	c := act{everybody: true}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if !slices.Contains(routerKeys, key) {
			c.question("it asks for %s=%s, which a door does not", key, values[key])
		}
	}
	if to := values["dst-address"]; to != "" {
		c.toward(to)
	}
	// The router's interfaces have other names than this host's.
	if device := cmp.Or(values["in-interface"], values["in-interface-list"]); device != "" {
		c.notes = []string{"The rule named the router's interface " + device + ". Here the door guards all interfaces but lo. To guard some only, write interfaces = [\"eth0\"]."}
	}
	return termsOf(c)
}

// routerTime reads a time such as 30s, 1h30m or 00:01:00.
func routerTime(s string) (time.Duration, bool) {
	if parts := strings.Split(s, ":"); len(parts) == 3 {
		s = parts[0] + "h" + parts[1] + "m" + parts[2] + "s"
	}
	return nftTime(s)
}
