package main

import (
	"context"
	"errors"
	"os"
	"time"
)

var (
	errParentEnded   = errors.New("its parent ended")
	errParentUnknown = errors.New("its parent is process 1, so it cannot tell whether it has lost the one that started it (--outlive-parent starts it anyway)")
)

const parentPollInterval = 500 * time.Millisecond

// watchParent calls end once the process has another parent than the given one, which is what
// happens when a parent dies, and returns then or when ctx ends. It polls: the kernel's own
// signal for this (PR_SET_PDEATHSIG) goes off when the parent's thread that forked ends, and a
// Go program ends threads while it lives.
func watchParent(ctx context.Context, parent int, end context.CancelCauseFunc) {
	ticker := time.NewTicker(parentPollInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if os.Getppid() != parent {
				end(errParentEnded)
				return
			}
		}
	}
}
