package systemd

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestMain can run this binary as a service that systemd has started.
func TestMain(m *testing.M) {
	if os.Getenv("KNOCKWALL_TEST_SERVICE") != "" {
		os.Exit(serveOnce())
	}
	os.Exit(m.Run())
}

// serveOnce writes what it was passed, and greets one client if that is a listener.
func serveOnce() int {
	if os.Getenv("LISTEN_PID") == "self" { // the process id is not known before the start
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	l, unit, err := Listener()
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if v, ok := os.LookupEnv(name); ok {
			fmt.Printf("%s=%s is left\n", name, v)
		}
	}
	if err != nil {
		fmt.Printf("error: %v\n", err)
		return 0
	}
	if l == nil {
		fmt.Printf("nothing, %q\n", unit)
		return 0
	}
	fmt.Printf("%s %s, %q\n", l.Addr().Network(), filepath.Base(l.Addr().String()), unit)
	conn, err := l.Accept()
	if err != nil {
		fmt.Printf("accepting: %v\n", err)
		return 1
	}
	fmt.Fprintln(conn, "welcome")
	conn.Close()
	l.Close() // the socket stays open in systemd
	return 0
}

// started runs the service with sockets that are passed as systemd does, and returns its
// output.
func started(t *testing.T, env []string, files ...*os.File) string {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), "KNOCKWALL_TEST_SERVICE=1", "GORACE=atexit_sleep_ms=0")
	child.Env = append(child.Env, env...)
	child.ExtraFiles = files // the first of them is file descriptor 3
	said, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	return strings.TrimSpace(string(said))
}

// listening returns a listening socket, as systemd has it, and its path.
func listening(t *testing.T, network string) (*os.File, string) {
	t.Helper()
	folder, err := os.MkdirTemp("", "kw") // not in t.TempDir, whose path may be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	addr := &net.UnixAddr{Name: filepath.Join(folder, "control.sock"), Net: network}
	var socket interface{ File() (*os.File, error) }
	if network == "unixgram" {
		conn, err := net.ListenUnixgram(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		socket = conn
	} else {
		l, err := net.ListenUnix(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		socket = l
	}
	f, err := socket.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, addr.Name
}

func TestSystemdsSocketIsListenedAt(t *testing.T) {
	for names, unit := range map[string]string{
		"LISTEN_FDNAMES=knockwall.socket": "knockwall.socket",
		"LISTEN_FDNAMES=other.socket":     "other.socket",
		// This is not the name of a unit that an administrator could stop.
		"LISTEN_FDNAMES=control": "",
		"LISTEN_FDNAMES=":        "",
		"NOTHING=":               "",
	} {
		t.Run(names, func(t *testing.T) {
			f, path := listening(t, "unix")
			client, err := net.Dial("unix", path) // the client whose connection starts the daemon
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			got := started(t, []string{"LISTEN_PID=self", "LISTEN_FDS=1", names}, f)
			if want := fmt.Sprintf("unix control.sock, %q", unit); got != want {
				t.Errorf("it says %q, want %q", got, want)
			}
			b := make([]byte, 100)
			if n, err := client.Read(b); err != nil || string(b[:n]) != "welcome\n" {
				t.Errorf("the client reads %q, %v", b[:n], err)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("the daemon has removed systemd's socket: %v", err)
			}
		})
	}
}

func TestWhereSystemdHandsOverNothingThereIsNoListener(t *testing.T) {
	f, _ := listening(t, "unix")
	for name, env := range map[string][]string{
		"nothing is said":            {"LISTEN_PID=", "LISTEN_FDS="},
		"it is for another process":  {"LISTEN_PID=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=knockwall.socket"},
		"there are none":             {"LISTEN_PID=self", "LISTEN_FDS=0", "LISTEN_FDNAMES="},
		"how many there are is none": {"LISTEN_PID=self", "LISTEN_FDS=many", "LISTEN_FDNAMES="},
	} {
		t.Run(name, func(t *testing.T) {
			if got := started(t, env, f); got != `nothing, ""` {
				t.Errorf("it says %q", got)
			}
		})
	}
}

func TestWhatIsNotOneStreamSocketIsRefused(t *testing.T) {
	stream, _ := listening(t, "unix")
	another, _ := listening(t, "unix")
	datagrams, _ := listening(t, "unixgram")
	file, err := os.Open("socket_test.go")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	const notOne = "error: taking the socket from systemd, which should be a stream socket: "
	for _, tt := range []struct {
		name  string
		files []*os.File
		want  string
	}{
		{"two sockets", []*os.File{stream, another}, "error: systemd passed 2 sockets; knockwall.socket should have one"},
		{"datagrams", []*os.File{datagrams}, notOne},
		{"a file", []*os.File{file}, notOne},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := []string{"LISTEN_PID=self", "LISTEN_FDS=" + strconv.Itoa(len(tt.files)), "LISTEN_FDNAMES=knockwall.socket"}
			if got := started(t, env, tt.files...); !strings.HasPrefix(got, tt.want) || strings.Contains(got, "\n") {
				t.Errorf("it says %q, want %q", got, tt.want)
			}
		})
	}
}
