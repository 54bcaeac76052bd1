package command

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"service-mirror.io/service-mirror/mirror"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
	"service-mirror.io/service-mirror/remote/secrets"
)

// resolve decides which remotes there are, by the flags and these Secrets.
func (cfg *config) resolve(found []*corev1.Secret) secrets.Set {
	shared, filter := cfg.parts.gateways.Shared(), cfg.remote.Gateway.Filter
	filter.Local = nil // it is applied to addresses when they are known
	return secrets.Resolve(cfg.remotes, found, func(spec *remote.Spec) error {
		return errors.Join(spec.Complete(shared, filter), cfg.parts.mirrors.ValidateRemote(*spec))
	})
}

// configure has the remotes that the flags and these Secrets configure run, and no others. pending tells that the
// Secrets are not known yet.
func (cfg *config) configure(ctx context.Context, fleet *mirror.Fleet, found []*corev1.Secret, pending bool) {
	set := cfg.resolve(found)
	if from := cfg.parts.remotes.From(); from != "" {
		fleet.Controller.Misnamed(from, set.Misnamed)
	}
	fleet.Set(ctx, set, pending)
}

// configured is which remotes are configured now, for commands that do something else than the daemon.
func (cfg *config) configured(ctx context.Context, local *rest.Config) (secrets.Set, error) {
	from := cfg.parts.remotes.From()
	if from == "" {
		return cfg.resolve(nil), nil
	}
	client, err := remote.NewClient(local)
	if err != nil {
		return cfg.resolve(nil), fmt.Errorf("local cluster: %w", err)
	}
	found, err := secrets.Source{Client: client, Namespace: from}.List(ctx)
	return cfg.resolve(found), err
}

// policy is that of the flags, with the remotes that are configured.
func (cfg *config) policy(set secrets.Set) plan.Policy {
	policy := cfg.mirror.Policy
	policy.Names, policy.Order = cfg.parts.mirrors.Names(set.Specs()), remote.Names(set.Specs())
	return policy
}

// unconfigured refuses the names of remotes that a Secret configures: the daemon would create their mirrors again.
func (cfg *config) unconfigured(ctx context.Context, local *rest.Config, names ...string) error {
	set, err := cfg.configured(ctx, local)
	if err != nil {
		return err
	}
	for _, one := range set.Remotes {
		for _, name := range names {
			if one.Name == name {
				return exit{exitFlags, fmt.Errorf("prune %s: %s configures this remote, so its mirrors would be recreated: remove it first", name, one.Where())}
			}
		}
	}
	return nil
}

// remotesOf are the remotes that a fleet runs.
func remotesOf(fleet *mirror.Fleet) (all []*remote.Remote) {
	for _, one := range fleet.Running() {
		if r, ok := one.(*remote.Remote); ok {
			all = append(all, r)
		}
	}
	return all
}
