package link

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"service-mirror.io/service-mirror/remote/failure"
)

// Of the daemon's status, which is requested in its own pod: who may not exec into that cannot verify either.
const (
	statusInterval = 2 * time.Second
	statusSettled  = 3 // times that it is the same before mirrors that wait are taken for mirrors that will go on waiting
)

// remoteStatus is what a replica knows of a remote, as service-mirror status prints it.
type remoteStatus struct {
	Name     string
	State    string
	Exported int
	Counts   map[string]int // of mirrors, by state
	Problems []struct{ Part, Cause string }
}

// errExec says that nothing can be run in the daemon's pod, which waiting does not change.
var errExec = errors.New("cannot run verify in the daemon's pod")

// empty reports whether the remote exports nothing, or nothing for this cluster.
func (s remoteStatus) empty() bool {
	mirrors := 0
	for state, n := range s.Counts {
		if state != "orphan" {
			mirrors += n
		}
	}
	return s.Exported == 0 || s.Exported > 0 && mirrors == 0
}

// connected waits until the daemon has connected to the remote, and prints the progress. The error says why it has not. The
// number of exported Services is negative if it is not known.
func (l *Linker) connected(ctx context.Context, d Daemon, name string, limit time.Duration) (last remoteStatus, err error) {
	command, err := d.statusCommand()
	if err != nil {
		l.line(err.Error())
		return remoteStatus{Exported: -1}, nil
	}
	l.step(l.Local, "waiting up to %v until the daemon has connected to %s", limit, name)
	said, same := "", 0
	err = wait.PollUntilContextTimeout(ctx, statusInterval, limit, true, func(ctx context.Context) (bool, error) {
		status, err := l.status(ctx, d, command, name)
		if err != nil {
			return false, err
		}
		progress, done := status.progress(name)
		same++
		if progress != said {
			l.line(progress)
			said, same = progress, 1
		}
		last = status
		return done || status.State == "up" && same >= statusSettled, nil
	})
	if wait.Interrupted(err) && ctx.Err() == nil {
		return last, fmt.Errorf("the daemon has not connected to %s: %s", name, said)
	}
	return last, err
}

// progress says how far the daemon is with a remote, and whether that is all that can be waited for.
func (s remoteStatus) progress(name string) (progress string, done bool) {
	waiting := s.Counts["waiting"]
	switch {
	case s.State == "":
		return "waiting: the daemon has not found " + name + " yet", false
	case s.State != "up" && len(s.Problems) > 0:
		return fmt.Sprintf("waiting: %s is %s: %s: %s", name, s.State, s.Problems[0].Part, s.Problems[0].Cause), false
	case s.State != "up":
		return fmt.Sprintf("waiting: %s is %s", name, s.State), false
	case waiting > 0:
		return fmt.Sprintf("connected: %d exported Services, %d of them without a mirror yet", s.Exported, waiting), false
	}
	return fmt.Sprintf("connected: %d exported Services", s.Exported), true
}

// statusCommand is what prints the status of the replica in whose pod it runs.
func (d Daemon) statusCommand() ([]string, error) {
	listens := flag(d.words(), "listen")
	if len(listens) == 0 {
		return nil, fmt.Errorf("Deployment %s/%s has no --listen, so its status cannot be read", d.Namespace, d.Name)
	}
	host, port, err := net.SplitHostPort(listens[len(listens)-1])
	if err != nil {
		return nil, fmt.Errorf("Deployment %s/%s has a --listen that is not HOST:PORT: its status is not known", d.Namespace, d.Name)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return []string{d.program(), "status", "--output=json", "--url=http://" + net.JoinHostPort(host, port)}, nil
}

// status requests the status in a pod of the daemon. A remote that it does not know has no state.
func (l *Linker) status(ctx context.Context, d Daemon, command []string, name string) (remoteStatus, error) {
	pod, err := l.pod(ctx, d)
	if err != nil {
		return remoteStatus{}, fmt.Errorf("%w: %w", errExec, err)
	}
	var out bytes.Buffer
	if _, err = l.Local.exec(ctx, d.Namespace, pod, d.Container, command, &out, io.Discard); err != nil {
		if ctx.Err() != nil {
			return remoteStatus{}, ctx.Err()
		}
		return remoteStatus{}, fmt.Errorf("%w: %s", errExec, failure.Line(err.Error()))
	}
	return statusOf(out.Bytes(), name), nil
}

// statusOf finds a remote in a status. One that cannot be read, as while a replica starts, knows no remote.
func statusOf(content []byte, name string) remoteStatus {
	var all struct{ Remotes []remoteStatus }
	if json.Unmarshal(content, &all) == nil {
		for _, one := range all.Remotes {
			if one.Name == name && one.State != "not configured" {
				return one
			}
		}
	}
	return remoteStatus{}
}
