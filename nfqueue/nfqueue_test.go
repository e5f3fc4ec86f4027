package nfqueue

import (
	"strings"
	"testing"
)

// As kernels write it: columns are as wide as seq_printf makes them.
const account = ` 7100  31337     2 2   128     0     0      110  1
 7101  31337    17 2   128     3     4     4097  1
  710  31337     9 2   128     1     1        5  1
65535 4294967295 16384 2 65531 4294967295 4294967295 4294967295  1
`

func TestStatsAreReadFromTheLineOfTheQueue(t *testing.T) {
	for queue, want := range map[uint16]Stats{
		7100:  {Waiting: 2},
		7101:  {Waiting: 17, Lost: 7},
		710:   {Waiting: 9, Lost: 2},
		65535: {Waiting: 16384, Lost: 2 * (1<<32 - 1)},
	} {
		if got, err := statsOf(account, queue); err != nil || got != want {
			t.Errorf("queue %d: %+v, %v, want %+v", queue, got, err, want)
		}
	}
}

func TestAQueueThatTheKernelDoesNotTellOfIsAnError(t *testing.T) {
	line := strings.SplitAfter(account, "\n")[0]
	for name, table := range map[string]string{
		"nothing":              "",
		"other queues":         account,
		"a line cut short":     strings.Replace(line, "7100", "7102", 1)[:27],
		"no numbers":           " 7102 a b c d e f g h\n",
		"negative numbers":     " 7102  31337    -1 2   128     0     0      110  1\n",
		"a number too large":   " 7102  31337 99999999999999999999 2   128     0     0  110  1\n",
		"the number elsewhere": " 7100   7102  7102 2  7102  7102  7102     7102  1\n",
	} {
		if got, err := statsOf(table, 7102); err == nil || !strings.Contains(err.Error(), "no queue 7102") {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func FuzzStatsOf(f *testing.F) {
	f.Add(account, uint16(7100))
	f.Add(" 7100  31337     2 2   128     0     0\n", uint16(7100))
	f.Fuzz(func(t *testing.T, table string, queue uint16) {
		if s, err := statsOf(table, queue); err != nil && s != (Stats{}) {
			t.Errorf("%+v with an error", s)
		}
	})
}
