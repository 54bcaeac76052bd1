package harness

import (
	"errors"
	"fmt"
	"time"
)

// pollInterval is short beside what is awaited and long beside a check.
const pollInterval = 50 * time.Millisecond

// Eventually waits until a check passes. It gives up after a time, and at once when a process
// has ended without which the check cannot pass: on ErrEnded.
func Eventually(within time.Duration, what string, check func() error) error {
	deadline := time.Now().Add(within)
	for {
		err := check()
		if err == nil {
			return nil
		}
		if errors.Is(err, ErrEnded) || time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %s: %w", within, what, err)
		}
		time.Sleep(pollInterval)
	}
}
