package link

import (
	"context"
	"fmt"
)

// Earlier versions linked a remote by an argument of the Deployment, which named a file of one Secret for all remotes.

// migrate removes what an earlier version's link left, once the Secret has all of it.
func (l *Linker) migrate(ctx context.Context, plan Plan, local Local) error {
	d := local.Daemon
	if d.inCommand(plan.Name) {
		l.remark(l.Local, fmt.Sprintf("Deployment %s/%s has --remote=%s in its command, which takes precedence over the Secret: remove it from your manifests", d.Namespace, d.Name, d.remote(plan.Name)))
		return nil
	}
	return l.removeEarlier(ctx, local, plan.Name)
}

// removeEarlier removes the argument and then the kubeconfig that it names. Pods that are about to be replaced have read
// it, and keep what they know of a remote whose file is missing.
func (l *Linker) removeEarlier(ctx context.Context, local Local, name string) error {
	d := local.Daemon
	if d.remote(name) != "" {
		l.step(l.Local, "removing --remote=%s from the arguments of Deployment %s/%s", d.remote(name), d.Namespace, d.Name)
		if err := l.changeDaemon(ctx, d, func(d Daemon) []string { return d.without(name) }); err != nil {
			return err
		}
	}
	if !local.Earlier {
		return nil
	}
	l.step(l.Local, "removing %s from Secret %s/%s", fileOf(name), d.Namespace, d.Earlier)
	return l.patch(ctx, l.Local, secrets, d.Namespace, d.Earlier, map[string]any{"data": map[string]any{fileOf(name): nil}})
}
