//go:build race

package lab

// raceEnabled reports whether the tests have the race detector. The program under test gets
// it too.
const raceEnabled = true
