//go:build unix

package sshkeys

import (
	"errors"
	"io"
	"net"
	"os"
)

// dialAgent connects to the agent that the environment names, as ssh does.
func dialAgent() (io.ReadWriteCloser, error) {
	path := os.Getenv("SSH_AUTH_SOCK")
	if path == "" {
		return nil, errors.New("the environment has no SSH_AUTH_SOCK")
	}
	return net.Dial("unix", path)
}
