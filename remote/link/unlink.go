package link

import (
	"cmp"
	"context"
	"fmt"
)

// Unlink takes a remote cluster out of the local one. Its mirrors stay, and so does the account in the remote cluster.
func (l *Linker) Unlink(ctx context.Context, name string) (Result, error) {
	l.result = newResult(name, l.Local.Name)
	local, err := l.readLocal(ctx, name)
	if err != nil {
		return l.result, err
	}
	d := local.Daemon
	l.result.RemotesFrom = cmp.Or(d.remotesFrom(), d.Namespace)
	if d.inCommand(name) {
		return l.result, fmt.Errorf("Deployment %s/%s has --remote=%s in its command, which unlink does not change: remove it from your manifests, and run unlink again", d.Namespace, d.Name, d.remote(name))
	}
	l.step(l.Local, "deleting the Secret with label %s=%s", remoteLabel, name)
	if local.Secret == nil {
		l.line(absent)
	} else {
		for _, one := range append(local.Others, local.Secret.Name) { // the one in use last: the daemon would use one of the others at once
			if err := l.delete(ctx, l.Local, secrets, local.Secret.Namespace, one); err != nil {
				return l.result, err
			}
		}
	}
	if err := l.removeEarlier(ctx, local, name); err != nil {
		return l.result, err
	}
	if err := l.delete(ctx, l.Local, networkPolicies, d.Namespace, egressName(name)); err != nil {
		return l.result, err
	}
	l.step(l.Local, "removing annotation %s of ServiceAccount %s/%s", annotation(name), d.Namespace, d.Account)
	return l.result, l.annotate(ctx, d, name, nil)
}

const absent = "not found"
