package wall

// lifecycle is how Run ends.
type lifecycle struct {
	failed       chan error    // the error with which Run ends
	down         chan struct{} // Down was called
	ending       chan struct{} // closed when Run begins to end
	teardownDone chan struct{} // closed when the table was removed, or is to stay
	removed      bool          // the table is gone; set before teardownDone is closed
	err          error         // the error that Run returns; likewise
	ended        chan struct{} // closed when Run has ended
}

func newLifecycle() lifecycle {
	return lifecycle{
		failed:       make(chan error, 1),
		down:         make(chan struct{}, 1),
		ending:       make(chan struct{}),
		teardownDone: make(chan struct{}),
		ended:        make(chan struct{}),
	}
}

// fail ends Run with an error, unless another error does already.
func (l *lifecycle) fail(err error) {
	select {
	case l.failed <- err:
	default:
	}
}

// askDown ends Run, and has it remove the table.
func (l *lifecycle) askDown() {
	select {
	case l.down <- struct{}{}:
	default: // it was asked before
	}
}

// hasEnded reports whether Run has ended.
func (l *lifecycle) hasEnded() bool {
	select {
	case <-l.ended:
		return true
	default:
		return false
	}
}
