package method

import "testing"

func TestGuessedIn(t *testing.T) {
	for _, tt := range []struct {
		ports, knocks, sequences int
		takes                    string
		soon                     bool
	}{
		{65535, 1, 1, "a second", true},
		{1000, 2, 1, "about 5 seconds", true},
		{5000, 2, 1, "about 2 minutes", true},
		{65535, 2, 1, "about 5 hours", true},
		{9999, 3, 1, "about 23 days", true},
		{10000, 3, 3, "about 7 days", true},
		{65535, 3, 3, "about 5 years", true},
		{65535, 3, 1, "about 17 years", false},
		{9999, 4, 1, "about 100 years", false}, // and more
		{65535, 32, 1, "about 100 years", false},
	} {
		takes, soon := GuessedIn(tt.ports, tt.knocks, tt.sequences)
		if takes != tt.takes || soon != tt.soon {
			t.Errorf("%d knocks of %d ports, %d at a time: %s, soon: %t, want %s, %t", tt.knocks, tt.ports, tt.sequences, takes, soon, tt.takes, tt.soon)
		}
	}
}
