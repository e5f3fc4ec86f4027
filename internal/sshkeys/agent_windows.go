package sshkeys

import (
	"io"
	"os"
)

// pipe is the named pipe of the agent in OpenSSH for Windows.
const pipe = `\\.\pipe\openssh-ssh-agent`

// dialAgent connects to the agent that the environment names, or to the one of Windows.
func dialAgent() (io.ReadWriteCloser, error) {
	path := os.Getenv("SSH_AUTH_SOCK")
	if path == "" {
		path = pipe
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}
