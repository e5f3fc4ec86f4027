package sshkeys

import (
	"errors"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/term"
)

// AskTerminal asks for a secret on the terminal of this process, without echo, wherever
// stdin and stdout lead.
func AskTerminal(prompt string) ([]byte, error) {
	in, out, err := openTerminal()
	if err != nil {
		return nil, errors.New("there is no terminal to ask for the passphrase: add the key to an ssh-agent (ssh-add)")
	}
	defer in.Close()
	defer out.Close()
	fd := int(in.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	fmt.Fprint(out, prompt)
	defer fmt.Fprintln(out)

	// Without a handler, Ctrl-C would end the process and leave the terminal without echo.
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	defer signal.Stop(interrupted)
	type answer struct {
		text []byte
		err  error
	}
	read := make(chan answer, 1)
	go func() {
		text, err := term.ReadPassword(fd)
		read <- answer{text, err}
	}()
	select {
	case a := <-read:
		return a.text, a.err
	case <-interrupted:
		return nil, errors.Join(errors.New("interrupted"), term.Restore(fd, before))
	}
}
