package check

import (
	"context"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
)

// What becomes of exports whose mirrors are merged depends on those of all remotes, so it is said when all are known.

// reportMerged says what will become of the exports of each remote.
func reportMerged(policy plan.Policy, local *target, reports []*Report) {
	var all []plan.Candidate
	for _, r := range reports {
		all = append(all, r.exported...)
	}
	byKey := map[cache.ObjectName][]plan.Candidate{}
	slices.SortStableFunc(all, func(a, b plan.Candidate) int {
		return plan.CompareKeys(cache.MetaObjectToName(a.Service), cache.MetaObjectToName(b.Service))
	})
	for _, c := range all {
		key := policy.Names.Of(c.Cluster).Key(c.Service)
		byKey[key] = append(byKey[key], c)
	}
	for _, r := range reports {
		if len(r.exported) == 0 {
			continue // none, or that was said
		}
		tally := Tally{Done: "mirrored"}
		for _, c := range r.exported {
			key := policy.Names.Of(c.Cluster).Key(c.Service)
			tally.Add(cache.MetaObjectToName(c.Service), local.merged(policy, key, c, byKey[key]))
		}
		r.Exports(tally)
	}
}

// merged is what will be wrong with one remote's part of a merged mirror.
func (t *target) merged(policy plan.Policy, key cache.ObjectName, c plan.Candidate, all []plan.Candidate) (problems []plan.Problem) {
	source := cache.MetaObjectToName(c.Service)
	of := func(problem plan.Problem) bool { return problem.Cluster == c.Cluster && problem.Source == source }
	mirror := policy.Decide(t.snapshot(key, all))
	for _, problem := range mirror.Problems {
		if problem.Reason != plan.Conflict || of(problem) { // others of the Service are everyone's
			problems = append(problems, problem)
		}
	}
	part := t.snapshot(plan.Part(key, c.Cluster), all)
	if part.Mirror = mirror.Desired.Service; part.Mirror == nil && t != nil {
		part.Mirror = t.services[key]
	}
	for _, problem := range policy.Decide(part).Problems {
		if of(problem) {
			problems = append(problems, problem)
		}
	}
	return problems
}

// lookAtParts reads which clusters the parts of merged mirrors are of.
func (r *Report) lookAtParts(ctx context.Context, t *target) {
	ours := plan.ManagedByLabel + "=" + plan.ManagedBy + "," + discoveryv1.LabelManagedBy + "=" + plan.SliceManager
	list, err := r.client.DiscoveryV1().EndpointSlices(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: ours})
	if err != nil {
		r.Unread("EndpointSlices", err)
		return
	}
	t.parts = map[string][]types.UID{}
	for i := range list.Items {
		identity, ours := plan.RemoteSliceOf(&list.Items[i])
		if uid := types.UID(list.Items[i].Annotations[plan.ClusterUIDAnnotation]); ours && !identity.Failover && uid != "" {
			t.parts[identity.Remote] = append(t.parts[identity.Remote], uid)
		}
	}
}
