package lab

import (
	"os"
	"path/filepath"
	"regexp"
)

// Attack is a change of another program to the server's tables.
type Attack struct {
	Name     string
	script   func(l *Lab) string // for nft
	Spares   bool                // the kernel accepts it, and spares tables with another owner
	Harmless bool                // it does not affect the wall
	Unhooks  bool                // it removes a chain of others that packets pass
}

// Attacks are changes by which other programs remove, break or replace the wall, and some
// that do not affect it.
var Attacks = []Attack{
	{Name: "nft flush ruleset", script: said("flush ruleset"), Spares: true, Unhooks: true},
	{Name: "nft delete table", script: said("delete table inet knockwall")},
	{Name: "nft flush table", script: said("flush table inet knockwall")},
	{Name: "nft delete rule", script: func(l *Lab) string {
		return "delete rule inet knockwall prerouting handle " + l.lastHandle("prerouting")
	}},
	{Name: "nft delete chain", script: said("flush chain inet knockwall ports_tcp_22; delete chain inet knockwall ssh_refuse")},
	{Name: "nft insert rule", script: said("insert rule inet knockwall prerouting accept")},
	{Name: "systemctl reload nftables", script: said("flush ruleset\n" + foreignTable), Spares: true, Unhooks: true},
	{Name: "another table of that name", script: said("delete table inet knockwall\n" + falseTable)},
	{Name: "ufw reload", script: said("add table ip filter; add chain ip filter INPUT; delete table ip filter"), Spares: true, Harmless: true},
	{Name: "another inet table", script: said("add table inet passing; delete table inet passing"), Spares: true, Harmless: true},
}

// Commit runs nft with the attack's script on the server, and returns nft's error.
func (l *Lab) Commit(a Attack) error {
	l.T.Helper()
	path := filepath.Join(l.Folder, "attack.nft")
	Must(l.T, os.WriteFile(path, []byte(a.script(l)+"\n"), 0o600))
	return l.TryNft("-f", path)
}

func said(script string) func(*Lab) string { return func(*Lab) string { return script } }

const (
	foreignTable = "table inet foreign {\n\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n\t\ttcp dport 1 drop\n\t}\n}\n"
	// A table with the wall's name that is not the wall's.
	falseTable = "table inet knockwall {\n\tchain wall {\n\t\taccept\n\t}\n}\n"
)

var handle = regexp.MustCompile(`# handle (\d+)`)

// lastHandle returns the handle of a chain's last rule.
func (l *Lab) lastHandle(chain string) string {
	l.T.Helper()
	all := handle.FindAllStringSubmatch(l.Nft("-a", "list", "chain", "inet", "knockwall", chain), -1)
	return all[len(all)-1][1]
}
