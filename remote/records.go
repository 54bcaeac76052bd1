package remote

import (
	"context"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/publish/record"
)

// Records are what the publisher of a remote says of the Services that it exports; nil: none are read.
type Records struct {
	namespace string
	informer  *Informer[*corev1.ConfigMap]
	synced    func() bool
}

// NewRecords are the records in a namespace, which an informer keeps; synced tells whether it is filled.
func NewRecords(namespace string, informer *Informer[*corev1.ConfigMap], synced func() bool) *Records {
	informer.Index(recordsAlone, func(configMap *corev1.ConfigMap) []string { alone, _ := claims(configMap); return alone })
	informer.Index(recordsShared, func(configMap *corev1.ConfigMap) []string { _, shared := claims(configMap); return shared })
	return &Records{namespace, informer, synced}
}

// How records are indexed, by the gateway ports that they have: alone, or shared with others.
const (
	recordsAlone  = "alone"
	recordsShared = "shared"
)

// recordsPart is the name under which problems with reading them are reported.
func recordsPart(namespace string) string { return "watch of records in " + namespace }

// newRecords makes the informer of a connection's records; nil where the flags name no namespace.
func newRecords(c *connection) *Records {
	namespace := c.remote.spec.Records
	if namespace == "" {
		return nil
	}
	informer := inform(c, source[*corev1.ConfigMapList]{
		part: recordsPart(namespace), namespace: namespace, objects: c.client.CoreV1().ConfigMaps(namespace),
		narrow: narrowRecords, bounds: c.remote.spec.Limits.ofRecords(c.remote.spec.Name),
	}, &corev1.ConfigMap{}, trimRecord)
	informer.Handle(Handler[*corev1.ConfigMap]{
		Added:   func(now *corev1.ConfigMap) { c.recordChanged(now.Name, nil, now) },
		Updated: func(before, now *corev1.ConfigMap) { c.recordChanged(now.Name, before, now) },
		Deleted: func(name cache.ObjectName, last *corev1.ConfigMap) { c.recordChanged(name.Name, last, nil) },
	})
	return NewRecords(namespace, informer, informer.HasSynced)
}

func narrowRecords(options *metav1.ListOptions) {
	options.LabelSelector = record.Label + "=" + record.Version
}

// trimRecord keeps what is read of a record. One that is too large stays so.
func trimRecord(configMap *corev1.ConfigMap) *corev1.ConfigMap {
	trimmed := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: configMap.Namespace, Name: configMap.Name, ResourceVersion: configMap.ResourceVersion,
		Labels: map[string]string{record.Label: configMap.Labels[record.Label]},
	}}
	if text, ok := configMap.Data[record.DataKey]; ok {
		if len(text) > record.MaxBytes {
			text = strings.Clone(text[:record.MaxBytes+1])
		}
		trimmed.Data = map[string]string{record.DataKey: text}
	}
	return trimmed
}

// claims are the gateway ports that a record has alone, and that it shares; none if it is malformed, or nil.
func claims(configMap *corev1.ConfigMap) (alone, shared []string) {
	if configMap == nil {
		return nil, nil
	}
	read, err := record.Parse(configMap)
	if err != nil {
		return nil, nil
	}
	return gateway.RecordClaims(read)
}

// recordChanged passes a change on, with the gateway ports that the record had or has alone.
func (c *connection) recordChanged(name string, before, after *corev1.ConfigMap) {
	service := record.ServiceOf(name)
	if service == (cache.ObjectName{}) || c.remote.hooks.RecordChanged == nil {
		return
	}
	had, _ := claims(before)
	has, _ := claims(after)
	c.remote.hooks.RecordChanged(c.remote.spec.Name, service, had, has)
}

// run fills and follows the cache until the context ends. filled is called once it is filled.
func (r *Records) run(ctx context.Context, wg *sync.WaitGroup, filled func()) {
	wg.Go(func() { r.informer.RunWithContext(ctx) })
	wg.Go(func() {
		if cache.WaitFor(ctx, "", r.informer.HasSyncedChecker()) {
			filled()
		}
	})
}

// known tells whether there is nothing to be waited for.
func (r *Records) known() bool { return r == nil || r.synced() }

// configMap is the name of the record of a Service.
func (r *Records) configMap(service cache.ObjectName) cache.ObjectName {
	return cache.NewObjectName(r.namespace, record.NameOf(service))
}

// Published is what the publisher says of an exported Service; nil where no records are read.
func (v View) Published(exported *corev1.Service) *gateway.Published {
	if v.Records == nil {
		return nil
	}
	if !v.Records.known() {
		return &gateway.Published{Unknown: true}
	}
	published := gateway.Published{}
	if configMap := v.Records.informer.Get(v.Records.configMap(cache.MetaObjectToName(exported))); configMap != nil {
		read, err := record.Parse(configMap)
		published = gateway.PublishedFor(exported, read, err)
	}
	published.Holder = v.publishedHolder
	return &published
}

// Holder is the oldest exported Service of those that have a gateway port alone by their record or, without any, of
// those that claim it, by an index; zero if there is none. What the publisher has given to one Service no annotation
// takes away, however old the Service that has it.
func (v View) Holder(index, claim string) cache.ObjectName {
	if published := v.publishedHolder(claim); published != (cache.ObjectName{}) {
		return published
	}
	return v.Services.Oldest(index, claim)
}

// publishedHolder is the oldest exported Service of those that have a gateway port alone by their record; zero if
// there is none.
func (v View) publishedHolder(claim string) cache.ObjectName {
	return v.Services.Oldest("", claim, v.publishedAlone(claim)...)
}

// publishedAlone are the exported Services that have a gateway port alone by their record.
func (v View) publishedAlone(claim string) (names []cache.ObjectName) {
	for _, name := range v.Records.named(recordsAlone, claim) {
		svc := v.Services.Get(name)
		if svc == nil {
			continue
		}
		configMap := v.Records.informer.Get(v.Records.configMap(name))
		if configMap == nil {
			continue
		}
		if read, err := record.Parse(configMap); gateway.PublishedFor(svc, read, err).Record != nil {
			names = append(names, name)
		}
	}
	return names
}

// Rivals are the Services that have a gateway port by their record, alone or with others.
func (v View) Rivals(claim string) []cache.ObjectName {
	return append(v.Records.named(recordsAlone, claim), v.Records.named(recordsShared, claim)...)
}

// ClaimedAlone are the gateway ports that a Service has alone by its record, whichever Service of this name that is of.
func (v View) ClaimedAlone(service cache.ObjectName) []string {
	if v.Records == nil {
		return nil
	}
	alone, _ := claims(v.Records.informer.Get(v.Records.configMap(service)))
	return alone
}

// named are the Services whose records have a value in an index.
func (r *Records) named(index, value string) (names []cache.ObjectName) {
	if r == nil {
		return nil
	}
	keys, err := r.informer.GetIndexer().IndexKeys(index, value)
	must(err)
	for _, key := range keys {
		if service := record.ServiceOf(nameOf(key).Name); service != (cache.ObjectName{}) {
			names = append(names, service)
		}
	}
	return names
}
