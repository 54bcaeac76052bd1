package plan

import (
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/publish/record"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
)

const (
	// AllocationsAnnotation, on a record, has the gateway ports that are the Service's alone, released ones included:
	// the memory of the publisher, which no reader needs.
	AllocationsAnnotation = "service-mirror.io/allocations"
	// Released is the value of record.Label on what is left of the record of a Service that is no longer exported,
	// until its ports may be given to others. No reader reads it.
	Released = "released"
)

// RecordOwned tells whether a ConfigMap is a record of ours, released ones included.
func RecordOwned(configMap *corev1.ConfigMap) bool {
	label := configMap.Labels[record.Label]
	return (label == record.Version || label == Released) && configMap.Labels[mirrors.ManagedByLabel] == mirrors.ManagedBy &&
		configMap.Annotations[PublishedAnnotation] == cache.MetaObjectToName(configMap).String()
}

// RecordKey is the exported Service that a record is about, whoever owns it; false where its name says none.
func RecordKey(configMap *corev1.ConfigMap) (cache.ObjectName, bool) {
	for i, char := range configMap.Name {
		if char == '.' {
			key := cache.NewObjectName(configMap.Name[:i], configMap.Name[i+1:])
			return key, key.Namespace != "" && key.Name != ""
		}
	}
	return cache.ObjectName{}, false
}

// Allocations reads what a record remembers of gateway ports; none where that is unreadable.
func Allocations(configMap *corev1.ConfigMap) (all []Allocation) {
	if configMap == nil || !RecordOwned(configMap) {
		return nil
	}
	if json.Unmarshal([]byte(configMap.Annotations[AllocationsAnnotation]), &all) != nil {
		return nil
	}
	return all
}

// record is the record as it should be. A problem of a port is what readers show.
func (d *decision) record() (*corev1.ConfigMap, error) {
	svc := d.snapshot.Service
	r := record.Record{Service: d.snapshot.Key, UID: svc.UID, Ready: d.snapshot.Ready}
	for _, a := range d.assigned {
		if a.unsaid {
			continue
		}
		port := record.Port{Port: a.port.Port, Protocol: protocolOf(a.port), Gateway: d.outside(a), Class: string(a.class), Shared: a.shared && a.gateway != 0}
		if a.problem != nil {
			port.Problem = clip(a.problem.Error(), maxProblem)
		}
		if a.kept != nil {
			port = *a.kept
		}
		if a.shared && a.gateway != 0 {
			r.Hosts = d.hosts
		}
		r.Ports = append(r.Ports, port)
	}
	if more := len(r.Ports) - record.MaxPorts; more > 0 {
		r.Ports = r.Ports[:record.MaxPorts]
		d.problem(mirrors.PortNotServed, fmt.Sprintf("%d of its ports are not in its record, which holds %d: export fewer ports with the annotation %s",
			more, record.MaxPorts, gateway.SelectAnnotation))
	}
	if r.Hosts == nil && d.aliased() {
		r.Hosts, _ = d.policy.wildcard(svc)
	}
	if r.Hosts == nil {
		r.Hosts = d.keptHosts
	}
	want, err := r.ConfigMap(d.policy.Records)
	if err != nil {
		return nil, err
	}
	if n := len(want.Data[record.DataKey]); n > record.MaxBytes {
		return nil, fmt.Errorf("its record has %d bytes, more than %d: export fewer ports with the annotation service-mirror.io/ports, or list fewer host names", n, record.MaxBytes)
	}
	return want, d.remember(want)
}

// outside is the gateway port that readers use.
func (d *decision) outside(a assignment) int32 {
	if a.kind == Ingress || a.gateway == 0 {
		return a.gateway
	}
	return d.snapshot.Gateway.outside(gateway.PortNumber{Number: a.gateway, Protocol: protocolOf(a.port)})
}

// maxProblem is how much of a problem a record has.
const maxProblem = 300

func clip(text string, length int) string {
	if len(text) <= length {
		return text
	}
	for length > 0 && text[length]&0xc0 == 0x80 { // within a character
		length--
	}
	return text[:length]
}

// remember puts on a record whose it is, and the Service's gateway ports.
func (d *decision) remember(want *corev1.ConfigMap) error {
	want.Labels[mirrors.ManagedByLabel] = mirrors.ManagedBy
	want.Annotations = map[string]string{PublishedAnnotation: cache.MetaObjectToName(want).String()}
	if len(d.plan.Allocations) == 0 {
		return nil
	}
	text, err := json.Marshal(d.plan.Allocations)
	want.Annotations[AllocationsAnnotation] = string(text)
	return err
}

// releasedRecord is what is left of the record of a Service that is no longer exported; nil: nothing is.
func (d *decision) releasedRecord() (*corev1.ConfigMap, error) {
	if len(d.plan.Allocations) == 0 {
		return nil, nil
	}
	want := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: d.policy.Records, Name: record.NameOf(d.snapshot.Key), Labels: map[string]string{record.Label: Released}}}
	return want, d.remember(want)
}

// writeRecord adds the step for the record.
func (d *decision) writeRecord(want *corev1.ConfigMap) {
	live := d.snapshot.Record
	ref := Ref{Record, record.NameOf(d.snapshot.Key)}
	d.plan.Record = want
	switch {
	case live != nil && !RecordOwned(live), d.snapshot.Foreign[ref]:
		d.outdated = d.announces(want)
		if want != nil && d.snapshot.Service != nil {
			d.problem(mirrors.Conflict, fmt.Sprintf("ConfigMap %s/%s, the name of its record, already exists and is not managed by service-mirror: delete it, or set another --record-namespace", d.policy.Records, ref.Name))
		}
	case d.backedOff(ref, nil):
		d.outdated = d.announces(want)
	case want == nil && live != nil:
		d.step(Step{Action: Delete, Ref: ref, Record: live})
	case want == nil:
	case live == nil:
		d.step(Step{Action: Create, Ref: ref, Record: want})
	case !sameRecord(live, want):
		if d.snapshot.Settling > 0 && sameButReady(live, want) {
			d.again(d.snapshot.Settling)
			return
		}
		updated := live.DeepCopy()
		updated.Data, updated.BinaryData = want.Data, nil
		updated.Labels = overlay(live.Labels, want.Labels)
		updated.Annotations = overlay(live.Annotations, want.Annotations)
		if _, remembers := want.Annotations[AllocationsAnnotation]; !remembers {
			delete(updated.Annotations, AllocationsAnnotation)
		}
		d.step(Step{Action: Update, Ref: ref, Record: updated})
	}
}

func sameRecord(live, want *corev1.ConfigMap) bool {
	return equality.Semantic.DeepEqual(live.Data, want.Data) && len(live.BinaryData) == 0 &&
		!lacks(live.Labels, want.Labels) && !lacks(live.Annotations, want.Annotations) &&
		live.Annotations[AllocationsAnnotation] == want.Annotations[AllocationsAnnotation]
}

// announced is what readers find in the live record of the Service as it is now; false: nothing.
func (d *decision) announced() (record.Record, bool) {
	if d.snapshot.Record == nil || d.snapshot.Service == nil {
		return record.Record{}, false
	}
	live, err := record.Parse(d.snapshot.Record)
	return live, err == nil && live.UID == d.snapshot.Service.UID
}

// announces tells whether readers find anything else in the live record than it should say, which may be nothing: nil.
func (d *decision) announces(want *corev1.ConfigMap) bool {
	live, found := d.announced()
	if !found || want == nil {
		return found
	}
	should, err := record.Parse(want)
	should.Ready = live.Ready // both route alike
	return err != nil || !equality.Semantic.DeepEqual(live, should)
}

// sameButReady tells whether two records differ in nothing but Ready.
func sameButReady(live, want *corev1.ConfigMap) bool {
	a, err := record.Parse(live)
	b, other := record.Parse(want)
	a.Ready = b.Ready
	copied := want.DeepCopy()
	copied.Data = live.Data
	return err == nil && other == nil && equality.Semantic.DeepEqual(a, b) && sameRecord(live, copied)
}

// again has the Service looked at again.
func (d *decision) again(after time.Duration) {
	if d.plan.After == 0 || after < d.plan.After {
		d.plan.After = after
	}
}
