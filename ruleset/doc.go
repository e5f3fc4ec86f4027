// Package ruleset reads rule files. [Load] turns HCL files into a checked [Config] with
// every default filled in, or reports all errors (load.go). advice.go adds warnings.
// [Loaded.Save] keeps a copy of the files that are in force, and [Recall] reads the copy
// (kept.go). internal/effective resolves a Config for a time and a host, and internal/nft
// turns it into nftables rules.
package ruleset
