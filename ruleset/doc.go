// Package ruleset reads rule files and turns them into the nftables table they
// stand for.
//
// It works in three steps, each of which can be looked at by itself:
//
//   - [Load] reads HCL files into a [Config], or says all that is wrong with them
//     (load.go, and advice.go for what is merely unwise).
//   - [NewTable] turns a Config into a [Table]: sets, chains and rules. A Table
//     prints itself as the nft script that has the same effect (table.go; rule.go
//     has the words that rules are made of).
//   - [Kernel] puts a Table in place, in one transaction that carries the open
//     windows over, and opens and closes windows (kernel.go, features.go).
package ruleset
