package plan

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ConfirmAnnotation on a mirror, with the value "true", is an operator's consent to its deletion. A mirror
// whose Service is exported does not keep it.
const ConfirmAnnotation = "service-mirror.io/confirm-delete"

// DeletesMirror tells a plan that deletes a mirror because its remote no longer exports the Service: another one does not take its place.
func (p Plan) DeletesMirror() bool {
	if p.Source != nil || p.Successor != nil || !p.Forget {
		return false
	}
	if _, _, part := PartOf(p.Key); part {
		return p.Writes(SliceKinds...)
	}
	// A merged mirror is deleted with its last part.
	return p.Live.Service != nil && p.Cluster != "" && p.Cluster != MergedCluster && p.Writes(Service)
}

// Confirmed tells whether an operator consents to the deletion of the live mirror.
func (p Plan) Confirmed() bool {
	return slices.ContainsFunc(p.confirmed(), func(obj metav1.Object) bool { return obj.GetAnnotations()[ConfirmAnnotation] == "true" })
}

// confirmed are the live objects on which an operator consents: of a part, its EndpointSlices.
func (p Plan) confirmed() (objects []metav1.Object) {
	which := []Kind{Service}
	if _, _, part := PartOf(p.Key); part {
		which = SliceKinds
	}
	for _, k := range which {
		if obj := p.Live.Get(k); obj != nil {
			objects = append(objects, obj)
		}
	}
	return objects
}

// Paused is a plan that deletes a mirror without the deletion: more than limit mirrors of its remote were to be
// deleted within a minute.
func (p Plan) Paused(limit int) Plan {
	source, _ := parseName(p.confirmed()[0].GetAnnotations()[RemoteServiceAnnotation])
	_, _, part := PartOf(p.Key)
	p.Steps, p.Forget, p.DropTombstone = nil, false, false
	p.Problems = append(p.Problems, Problem{Reason: TooManyDeletes, Cluster: p.Cluster, Source: source, Message: pausedMessage(p.Cluster, limit, part)})
	return p
}

func pausedMessage(cluster string, limit int, part bool) string {
	resource := "services"
	if part {
		resource = "endpointslices"
	}
	return fmt.Sprintf("remote %s no longer exports it, but more than %d mirrors of that remote would be deleted within a minute (--max-deletes): to confirm the deletion, run kubectl annotate %s --all-namespaces --selector %s=%s,%s=%s %s=true",
		cluster, limit, resource, ManagedByLabel, ManagedBy, ClusterLabel, cluster, ConfirmAnnotation)
}
