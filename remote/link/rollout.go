package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// rollout waits until the Deployment's pods are ready, as after an installation or a migration, and prints the progress.
// The error says that they are not.
func (l *Linker) rollout(ctx context.Context, d Daemon, limit time.Duration) error {
	l.step(l.Local, "waiting up to %[3]v for the rollout of Deployment %[1]s/%[2]s", d.Namespace, d.Name, limit)
	said := ""
	err := wait.PollUntilContextTimeout(ctx, time.Second, limit, true, func(ctx context.Context) (bool, error) {
		var deployment appsv1.Deployment
		found, err := l.Local.read(ctx, deployments, d.Namespace, d.Name, &deployment)
		if err != nil || !found {
			return false, nil // which may pass
		}
		progress, done := progressOf(&deployment)
		if progress != said {
			l.line(progress)
		}
		said = progress
		return done, nil
	})
	if err != nil && ctx.Err() == nil {
		return errors.New("the daemon's pods are not ready")
	}
	return err
}

// progressOf says how far a rollout is, and whether it is over.
func progressOf(d *appsv1.Deployment) (progress string, done bool) {
	want, status := int32(1), d.Status
	if d.Spec.Replicas != nil {
		want = *d.Spec.Replicas
	}
	switch {
	case status.ObservedGeneration < d.Generation:
		return "waiting for the Deployment controller", false
	case status.UpdatedReplicas < want:
		return fmt.Sprintf("waiting: %d of %d pods updated", status.UpdatedReplicas, want), false
	case status.Replicas > status.UpdatedReplicas:
		return fmt.Sprintf("waiting: %d old pods remain", status.Replicas-status.UpdatedReplicas), false
	case status.AvailableReplicas < want:
		return fmt.Sprintf("waiting: %d of %d pods ready", status.AvailableReplicas, want), false
	}
	return "rolled out", true
}
