// Package nft has what a configuration stands for in nftables, and puts it in force.
//
//   - [NewTable] turns a configuration into a [Table]: sets, chains and rules. A Table
//     prints itself as the nft script that has the same effect (table.go; rule.go and
//     source.go have the words that rules are made of).
//   - [Kernel] puts a Table in place, in one transaction that carries the open windows
//     over (install.go), opens and closes windows (kernel.go), reads back what stands
//     (standing.go), and reports what others change (watch.go). features.go finds out
//     what a kernel may lack.
package nft
