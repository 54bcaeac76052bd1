package report

import (
	"errors"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
)

// slowSink holds up a request until it is released.
type slowSink struct {
	record.EventSink
	begun, release chan struct{}
	writes         int
}

func (s *slowSink) Create(event *corev1.Event) (*corev1.Event, error) {
	close(s.begun)
	<-s.release
	s.writes++
	return event, nil
}

// The end waits for a request that is under way, and lets no other begin.
func TestSinkCloses(t *testing.T) {
	slow := &slowSink{begun: make(chan struct{}), release: make(chan struct{})}
	s := &sink{EventSink: slow}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := s.Create(&corev1.Event{}); err != nil {
			t.Error(err)
		}
	})
	<-slow.begun
	closed := make(chan struct{})
	go func() { defer close(closed); s.close() }()
	select {
	case <-closed:
		t.Error("it is closed while a request is under way")
	default:
	}
	close(slow.release)
	<-closed
	wg.Wait()
	if slow.writes != 1 {
		t.Errorf("%d writes", slow.writes)
	}
	if _, err := s.Create(&corev1.Event{}); !errors.Is(err, errClosed) {
		t.Errorf("a request after the end: %v", err)
	}
	if _, err := s.Patch(&corev1.Event{}, nil); !errors.Is(err, errClosed) {
		t.Errorf("a request after the end: %v", err)
	}
}
