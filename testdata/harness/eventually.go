package harness

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// pollInterval is short beside what is awaited and long beside a check.
const pollInterval = 50 * time.Millisecond

// Eventually waits until a check passes. It gives up after a time, and at once on an error that
// waiting cannot change: ErrEnded, or a context that was canceled.
func Eventually(within time.Duration, what string, check func() error) error {
	deadline := time.Now().Add(within)
	for {
		err := check()
		if err == nil {
			return nil
		}
		if errors.Is(err, ErrEnded) || errors.Is(err, context.Canceled) || time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %s: %w", within, what, err)
		}
		time.Sleep(pollInterval)
	}
}
