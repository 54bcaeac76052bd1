package remote

import (
	"context"
	"slices"
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
	claims    *claims
	aliases   *aliases
	synced    func() bool
	filled    cache.DoneChecker // as synced, to be waited for
}

// NewRecords are the records in a namespace, which an informer keeps; synced is whether it is filled, and all changes
// up to then are noted.
func NewRecords(namespace string, informer *Informer[*corev1.ConfigMap], synced func() bool) *Records {
	return &Records{namespace: namespace, informer: informer, claims: newClaims(), aliases: newAliases(), synced: synced}
}

// recordsPart is the name under which problems with reading them are reported.
func recordsPart(namespace string) string { return "watch of records in " + namespace }

// newRecords makes the informer of a connection's records; nil where the flags name no namespace.
func newRecords(c *connection) *Records {
	namespace := c.remote.spec.Records
	if namespace == "" {
		return nil
	}
	bounds := c.remote.spec.Limits.ofRecords(c.remote.spec.Name)
	bounds.kept.bound.where = c.remote.spec.Where()
	informer := inform(c, source[*corev1.ConfigMapList]{
		part: recordsPart(namespace), namespace: namespace, objects: c.client.CoreV1().ConfigMaps(namespace),
		narrow: narrowRecords, bounds: bounds,
	}, &corev1.ConfigMap{}, trimRecord)
	r := NewRecords(namespace, informer, nil)
	registered := informer.Handle(Handler[*corev1.ConfigMap]{
		Added:   func(now *corev1.ConfigMap) { c.recordChanged(r, now.Name, now) },
		Updated: func(_, now *corev1.ConfigMap) { c.recordChanged(r, now.Name, now) },
		Deleted: func(name cache.ObjectName, _ *corev1.ConfigMap) { c.recordChanged(r, name.Name, nil) },
	})
	r.synced, r.filled = registered.HasSynced, registered.HasSyncedChecker()
	return r
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

// RecordChange is what of a record may concern other Services than the one that it is about.
type RecordChange struct {
	Service cache.ObjectName // that the record is about
	// Had and Has are the gateway ports that it had and has alone.
	Had, Has []string
	// Aliases are the other Services whose names it had or has routed to this one.
	Aliases []cache.ObjectName
}

// Changed notes a record as it is now, nil if it is gone. One that is malformed has no gateway ports, and no aliases.
func (r *Records) Changed(name string, now *corev1.ConfigMap) RecordChange {
	service := record.ServiceOf(name)
	if service == (cache.ObjectName{}) {
		return RecordChange{}
	}
	var valid *record.Record
	if now != nil {
		if read, err := record.Parse(now); err == nil {
			valid = &read
		}
	}
	claims, aliases := claimsOf(service, valid), aliasesOf(service, valid)
	change := RecordChange{Service: service, Had: r.claims.set(claims), Has: claims.alone, Aliases: slices.Clone(aliases.names)}
	for _, name := range r.aliases.set(aliases) {
		if !slices.Contains(change.Aliases, name) {
			change.Aliases = append(change.Aliases, name)
		}
	}
	return change
}

// recordChanged passes a change on.
func (c *connection) recordChanged(r *Records, name string, now *corev1.ConfigMap) {
	change := r.Changed(name, now)
	if change.Service == (cache.ObjectName{}) || c.remote.hooks.RecordChanged == nil {
		return
	}
	c.remote.hooks.RecordChanged(c.remote.spec.Name, change)
}

// run fills and follows the cache until the context ends. filled is called once it is filled.
func (r *Records) run(ctx context.Context, wg *sync.WaitGroup, filled func()) {
	wg.Go(func() { r.informer.RunWithContext(ctx) })
	wg.Go(func() {
		if cache.WaitFor(ctx, "", r.filled) {
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
	published.Holder = func(claim string) cache.ObjectName { return v.publishedHolder(exported, claim) }
	published.Crowded = v.Records.crowded
	return &published
}

// Assigned is what decides about the gateway ports of an exported Service besides the gateway and the Service itself.
func (v View) Assigned(exported *corev1.Service) gateway.Assignments {
	holder := func(claim string) cache.ObjectName { return v.Holder(exported, claim) }
	return gateway.Assignments{Holder: holder, Published: v.Published(exported)}
}

// Routed is the oldest exported Service to which a gateway routes the name NAME.NAMESPACE of another one, as its record
// says; nil: there is none. known tells whether that is known.
func (v View) Routed(name cache.ObjectName) (exported *corev1.Service, known bool) {
	if v.Records == nil {
		return nil, true
	}
	var names []cache.ObjectName
	for _, one := range v.Records.aliases.routed(name) {
		if svc := v.Services.Get(one.service); svc != nil && svc.UID == one.uid {
			names = append(names, one.service)
		}
	}
	if len(names) == 0 {
		return nil, v.Records.known()
	}
	return v.Services.Get(v.Services.Oldest("", "", names...)), v.Records.known()
}

// ForFailover is the exported Service to which a local Service of a name fails over: that of the same name or, if none is
// exported, the one to which a gateway routes that name; nil: there is none. known tells whether that is known.
func (v View) ForFailover(name cache.ObjectName) (exported *corev1.Service, known bool) {
	if exported = v.Services.Get(name); exported != nil {
		return exported, v.Knows(name.Namespace)
	}
	exported, known = v.Routed(name)
	return exported, known && v.Knows(name.Namespace)
}

// Aliases are the other Services whose names are routed to an exported one by its record, whichever Service of this name
// that is of.
func (v View) Aliases(exported cache.ObjectName) []cache.ObjectName {
	if v.Records == nil {
		return nil
	}
	return v.Records.aliases.names(exported)
}

// ByClaim is the index over exported Services by Claims. A View needs it.
const ByClaim = "claim"

// Claims are the gateway ports that an exported Service claims, each with the gateway that it names.
func Claims(exported *corev1.Service) []string {
	name, err := gatewayOf(exported)
	if err != nil {
		return nil
	}
	claims := gateway.Claims(exported)
	for i, claim := range claims {
		claims[i] = claimAt(name, claim)
	}
	return claims
}

func claimAt(name cache.ObjectName, claim string) string { return claim + " " + name.String() }

// Claimants are the exported Services that claim a gateway port of any gateway that the flags list.
func (v View) Claimants(claim string) (all []cache.ObjectName) {
	for name := range v.Gateways.Known {
		all = append(all, v.Services.NamesByIndex(ByClaim, claimAt(name, claim))...)
	}
	return all
}

// Holder is the oldest exported Service behind the gateway of another one, itself included, of those that have a gateway
// port alone by their record or, without any, of those that claim it; zero if there is none. What the publisher has given
// to one Service no annotation takes away, however old the Service that has it.
func (v View) Holder(exported *corev1.Service, claim string) cache.ObjectName {
	if published := v.publishedHolder(exported, claim); published != (cache.ObjectName{}) {
		return published
	}
	mine, _ := v.Gateways.For(exported)
	var names []cache.ObjectName
	for name, gw := range v.Gateways.Known {
		if gw == mine {
			names = append(names, v.Services.Oldest(ByClaim, claimAt(name, claim)))
		}
	}
	return v.Services.Oldest("", "", names...)
}

// publishedHolder is the oldest exported Service, likewise, of those that have a gateway port alone by their record; zero
// if there is none, or a crowd.
func (v View) publishedHolder(exported *corev1.Service, claim string) cache.ObjectName {
	if v.Records == nil {
		return cache.ObjectName{}
	}
	mine, _ := v.Gateways.For(exported)
	var names []cache.ObjectName
	for _, one := range v.Records.claims.holders(claim) {
		svc := v.Services.Get(one.service)
		if svc == nil || svc.UID != one.uid {
			continue
		}
		// The publisher gives ports of its own gateway, whichever one the annotation of a Service names.
		if theirs, unlisted := v.Gateways.For(svc); theirs == mine || unlisted != nil {
			names = append(names, one.service)
		}
	}
	return v.Services.Oldest("", "", names...)
}

// crowded is whether more records than can be have a gateway port alone.
func (r *Records) crowded(claim string) bool { return r.claims.crowd(claim) > maxAlone }

// Rivals are the Services that have a gateway port by their record, alone or with others.
func (v View) Rivals(claim string) []cache.ObjectName {
	if v.Records == nil {
		return nil
	}
	return v.Records.claims.rivals(claim)
}

// ClaimedAlone are the gateway ports that a Service has alone by its record, whichever Service of this name that is of.
func (v View) ClaimedAlone(service cache.ObjectName) []string {
	if v.Records == nil {
		return nil
	}
	return v.Records.claims.aloneOf(service)
}

// Crowds is what a claim of one more record, or of one less, is to those that have a gateway port alone: nothing to any
// of a crowd, and everything to all as it begins.
func (v View) Crowds(claim string, less bool) (unaffected, begins bool) {
	if v.Records == nil {
		return false, false
	}
	n := v.Records.claims.crowd(claim)
	return n > maxAlone+1 || n > maxAlone && less, n == maxAlone+1 && !less
}
