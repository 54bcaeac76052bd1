package plan

import (
	"fmt"
)

// ConfirmAnnotation on a mirror, with the value "true", is an operator's consent to its deletion. A mirror
// whose Service is exported does not keep it.
const ConfirmAnnotation = "service-mirror.io/confirm-delete"

// DeletesMirror tells a plan that deletes a mirror because its remote no longer exports the Service: another one does not take its place.
func (p Plan) DeletesMirror() bool {
	return p.Source == nil && p.Successor == nil && p.Forget && p.Live.Service != nil && p.Cluster != "" && p.Writes(Service)
}

// Confirmed tells whether an operator consents to the deletion of the live mirror.
func (p Plan) Confirmed() bool {
	return p.Live.Service != nil && p.Live.Service.Annotations[ConfirmAnnotation] == "true"
}

// Paused is a plan that deletes a mirror without the deletion: more than limit mirrors of its remote were to be
// deleted within a minute.
func (p Plan) Paused(limit int) Plan {
	source, _ := parseName(p.Live.Service.Annotations[RemoteServiceAnnotation])
	p.Steps, p.Forget, p.DropTombstone = nil, false, false
	p.Problems = append(p.Problems, Problem{Reason: TooManyDeletes, Cluster: p.Cluster, Source: source, Message: pausedMessage(p.Cluster, limit)})
	return p
}

func pausedMessage(cluster string, limit int) string {
	return fmt.Sprintf("remote %s no longer exports it, but more than %d mirrors of that remote would be deleted within a minute (--max-deletes): if they are to go, run kubectl annotate services --all-namespaces --selector %s=%s,%s=%s %s=true",
		cluster, limit, ManagedByLabel, ManagedBy, ClusterLabel, cluster, ConfirmAnnotation)
}
