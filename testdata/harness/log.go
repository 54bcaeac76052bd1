package harness

import (
	"bytes"
	"strings"
	"sync"
)

// Log is what a process prints, to be read while it runs.
type Log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Reset drops what was printed so far.
func (l *Log) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Reset()
}

// Count counts the lines that contain all of the words.
func (l *Log) Count(words ...string) (count int) {
	for line := range strings.Lines(l.String()) {
		if containsAll(line, words) {
			count++
		}
	}
	return count
}

func containsAll(line string, words []string) bool {
	for _, word := range words {
		if !strings.Contains(line, word) {
			return false
		}
	}
	return true
}
