// Package nft translates a configuration to nftables, and puts it in force.
//
//   - [NewTable] turns a configuration into a [Table]: sets, chains and rules. A Table
//     prints itself as the nft script that has the same effect (table.go, text.go). rule.go,
//     ports.go and source.go have the terms that rules consist of. sets.go has the sets that
//     all doors share. dispatch.go finds the rules for a packet's port and address.
//   - [Kernel] installs a Table, in one transaction that keeps the open windows
//     (install.go). It opens and closes windows (kernel.go), reads back what is installed
//     (standing.go, windows.go), and reports the changes of other processes (watch.go). features.go
//     probes the features that a kernel may lack.
package nft
