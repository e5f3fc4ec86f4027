// Package ruleset reads rule files: [Load] turns HCL files into a checked [Config], with
// every default filled in, or says all that is wrong with them (load.go, and advice.go for
// what is merely unwise). [Loaded.Save] keeps the files that were in force, and [Recall]
// reads them again (kept.go). What a Config comes to at a time and on a host is for
// internal/effective to say, and what it stands for in the kernel for internal/nft.
package ruleset
