package check

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// failsOver are the local Services that fail over to a remote, by name; empty: to any.
func (t *target) failsOver(remote string) (all []*corev1.Service) {
	if t == nil {
		return nil
	}
	for _, svc := range t.services {
		if plan.FailsOver(svc) && (remote == "" || slices.Contains(plan.FailoverRemotes(svc), remote)) {
			all = append(all, svc)
		}
	}
	slices.SortFunc(all, func(a, b *corev1.Service) int {
		return plan.CompareKeys(cache.MetaObjectToName(a), cache.MetaObjectToName(b))
	})
	return all
}

// failover finds out which local Services cannot fail over, whatever the remotes say.
func (r *Report) failover(ctx context.Context, options Options, local *target) {
	all := local.failsOver("")
	if len(all) == 0 {
		return
	}
	r.Permissions(ctx, []Need{{Group: "discovery.k8s.io", Resource: "endpointslices", Verbs: []string{"create", "update"}, Why: "Services will not fail over"}})
	var causes []cause
	for _, svc := range all {
		var remotes []plan.FailoverRemote
		for _, name := range plan.FailoverRemotes(svc) {
			known := options.Unread != nil || slices.ContainsFunc(options.Remotes, func(spec remote.Spec) bool { return spec.Name == name })
			remotes = append(remotes, plan.FailoverRemote{Candidate: plan.Candidate{Cluster: name}, Configured: known})
		}
		causes = append(causes, failoverProblems(options, svc, "", remotes)...)
	}
	r.failoverCauses(causes)
	r.OK("%d Services are configured to fail over to remotes", len(all))
}

// failoverTo finds out which local Services cannot fail over to a remote.
func (r *Report) failoverTo(local *target, options Options, cluster string, view remote.View) {
	all := local.failsOver(cluster)
	if len(all) == 0 {
		return
	}
	var causes []cause
	for _, svc := range all {
		key := cache.MetaObjectToName(svc)
		exported, known := view.ForFailover(key)
		found := plan.FailoverRemote{Configured: true, Candidate: plan.Candidate{Cluster: cluster, Watched: known}}
		if exported != nil && options.Policy.Concerns(exported) {
			found.Candidate = candidate(cluster, view, exported)
		}
		causes = append(causes, failoverProblems(options, svc, cluster, []plan.FailoverRemote{found})...)
	}
	r.failoverCauses(causes)
	r.OK("%d local Services are configured to fail over to it", len(all))
}

// failoverProblems are what is wrong with a Service's failover to remotes, while its local endpoints serve; with that to
// one remote, if it is named.
func failoverProblems(options Options, svc *corev1.Service, only string, remotes []plan.FailoverRemote) (causes []cause) {
	key := cache.MetaObjectToName(svc)
	p := plan.FailoverPolicy{Policy: options.Policy}.Decide(plan.FailoverSnapshot{
		Key: key, Service: svc, Local: plan.LocalEndpoints{Known: true, Ready: true}, Remotes: remotes,
	})
	for _, problem := range p.Problems {
		if only != "" && problem.Cluster != only { // of the Service: reported once
			continue
		}
		why := strings.ReplaceAll(problem.Message, "\n", "; ")
		if problem.Cluster != "" {
			why = "remote " + problem.Cluster + ": " + why
		}
		causes = append(causes, cause{problem.Reason, why, []string{key.String()}})
	}
	return causes
}

// failoverCauses warns of what is wrong, of Services with one cause at once.
func (r *Report) failoverCauses(all []cause) {
	for _, c := range grouped(all) {
		of := "failover of Service " + c.services[0]
		if n := len(c.services); n > 1 {
			of = fmt.Sprintf("failover of %d Services, %s", n, Names(c.services))
		}
		r.add(Finding{Level: LevelWarning, Message: fmt.Sprintf("%s: %s: %s", of, c.reason, c.why), Reason: c.reason, Services: c.services})
	}
}
