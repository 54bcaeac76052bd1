package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
)

// A merged mirror is one Service for the exports of several remotes, with EndpointSlices of each of them: its parts. The
// Service and each part have a key of their own, so that what happens to one remote changes only its part. merged.go
// decides the Service, part.go a part.

// Merge is whether exports of several remotes with one key are merged into one mirror, and which of them serve.
type Merge string

// The values. Any other one is as MergeOff.
const (
	MergeOff   Merge = "off"
	MergeAll   Merge = "all"   // every remote serves
	MergeFirst Merge = "first" // the first healthy remote serves, in the order of the flags
)

// Merges tells whether mirrors are merged.
func (p Policy) Merges() bool { return p.Merge == MergeAll || p.Merge == MergeFirst }

const (
	// MergedCluster is in the place of a remote's name on the Service of a merged mirror. It is no DNS label, so no
	// remote has it.
	MergedCluster = "merged.service-mirror.io"
	// RemotesAnnotation on such a Service lists the remotes that it is of, in the order of the flags, with the Services
	// that they export: paris=default/bar,berlin=default/bar.
	RemotesAnnotation = "service-mirror.io/remotes"
)

// Part is the key of a remote's part of a merged mirror. No Service's name has a dot, and no remote's.
func Part(mirror cache.ObjectName, remote string) cache.ObjectName {
	return cache.NewObjectName(mirror.Namespace, mirror.Name+"."+remote)
}

// PartOf is the mirror and the remote of the key of a part; part is false for any other key.
func PartOf(key cache.ObjectName) (mirror cache.ObjectName, remote string, part bool) {
	mirror.Namespace = key.Namespace
	mirror.Name, remote, part = strings.Cut(key.Name, ".")
	return mirror, remote, part
}

// MirrorKey is the key of the mirror's Service, of a part's key, too.
func MirrorKey(key cache.ObjectName) cache.ObjectName {
	mirror, _, _ := PartOf(key)
	return mirror
}

// Listed is a remote that a merged mirror lists, and the Service that it exports.
type Listed struct {
	Remote string
	Source cache.ObjectName
}

// IsMerged tells the Service of a merged mirror, although someone has edited its label.
func IsMerged(svc *corev1.Service) bool {
	if svc == nil {
		return false
	}
	cluster, ours := Owner(svc)
	_, lists := svc.Annotations[RemotesAnnotation]
	return ours && (lists || cluster == MergedCluster)
}

// Remotes are the remotes that a merged mirror lists; none: it is no merged one, or foreign.
func Remotes(svc *corev1.Service) (all []Listed) {
	if !IsMerged(svc) {
		return nil
	}
	for _, entry := range strings.Split(svc.Annotations[RemotesAnnotation], ",") {
		remote, text, _ := strings.Cut(entry, "=")
		if source, valid := parseName(text); valid && remote != "" {
			all = append(all, Listed{remote, source})
		}
	}
	return all
}

// Lists tells whether a Service is that of a merged mirror which lists a remote.
func Lists(svc *corev1.Service, remote string) bool {
	return slices.ContainsFunc(Remotes(svc), func(listed Listed) bool { return listed.Remote == remote })
}

// MirrorOf is what a Service is the mirror of: of a merged one, all that it lists; none: it is foreign, or records nothing.
func MirrorOf(svc *corev1.Service) []Listed {
	if svc == nil || IsMerged(svc) {
		return Remotes(svc)
	}
	cluster, ours := Owner(svc)
	if source, recorded := Source(svc); ours && recorded {
		return []Listed{{cluster, source}}
	}
	return nil
}

// Unlist returns a merged mirror's Service without a remote in its list; nil if it lists no other one, or not this one.
func Unlist(svc *corev1.Service, remote string) *corev1.Service {
	left := slices.DeleteFunc(Remotes(svc), func(listed Listed) bool { return listed.Remote == remote })
	if !Lists(svc, remote) || len(left) == 0 {
		return nil
	}
	svc = svc.DeepCopy()
	svc.Annotations[RemotesAnnotation] = listText(left)
	return svc
}

// listText is the value of RemotesAnnotation.
func listText(all []Listed) string {
	var texts []string
	for _, one := range all {
		texts = append(texts, one.Remote+"="+one.Source.String())
	}
	return strings.Join(texts, ",")
}

// rank is the place of a remote in the order of the flags. Those that they do not name come last.
func (p Policy) rank(remote string) int {
	if i := slices.Index(p.Order, remote); i >= 0 {
		return i
	}
	return len(p.Order)
}

func (p Policy) compareRemotes(a, b string) int {
	return cmp.Or(cmp.Compare(p.rank(a), p.rank(b)), strings.Compare(a, b))
}

// merged is what is known of all remotes of a merged mirror.
type merged struct {
	policy  Policy
	service *corev1.Service // the live one; nil: there is none of ours
	listed  []Listed        // by the live Service
	exports []Candidate     // one of each remote that exports it, in the order of the flags
	known   []string        // remotes that would have it if they exported it
	unknown []string        // remotes that may export it, in the order of the flags
	parts   map[string]Objects
	refused map[string]bool // remotes whose slices cannot be written now
}

// merge finds out whose a merged mirror is. A second Service of one remote is a conflict.
func (d *decision) merge(service *corev1.Service) (m merged, others []Candidate) {
	m = merged{policy: d.policy, known: d.known, parts: map[string]Objects{}, refused: maps.Clone(d.snapshot.Refused), listed: Remotes(service)}
	mirror := MirrorKey(d.snapshot.Key)
	if service != nil {
		if owner, ours := Owner(service); ours {
			m.service = service
			if source, recorded := Source(service); recorded && owner != MergedCluster {
				m.listed = []Listed{{d.owner(d.plan.Live), source}} // not merged until now
			}
		}
	}
	for remote, objects := range d.snapshot.Parts {
		own, foreign := objects.owned(Part(mirror, remote))
		if !own.Empty() {
			m.parts[remote] = own
		}
		if foreign != "" || own.deleting() != nil {
			m.refuse(remote)
		}
	}
	if d.policy.Merges() {
		for _, c := range d.wanted {
			if m.chosen(c, d.wanted) {
				m.exports = append(m.exports, c)
			} else {
				others = append(others, c)
			}
		}
	}
	slices.SortFunc(m.exports, func(a, b Candidate) int { return d.policy.compareRemotes(a.Cluster, b.Cluster) })
	for _, remote := range m.remotes() {
		if !slices.Contains(d.known, remote) && m.export(remote) == nil {
			m.unknown = append(m.unknown, remote)
		}
	}
	return m, others
}

// chosen tells whether it is this one of the Services that a remote exports under one key: the one that is listed, else
// the first.
func (m *merged) chosen(c Candidate, all []Candidate) bool {
	of := slices.DeleteFunc(slices.Clone(all), func(other Candidate) bool { return other.Cluster != c.Cluster })
	for _, listed := range m.listed {
		i := slices.IndexFunc(of, func(other Candidate) bool { return other.Cluster == listed.Remote && other.name() == listed.Source })
		if i >= 0 {
			return of[i].name() == c.name()
		}
	}
	return of[0].name() == c.name()
}

// refuse notes a remote whose slices cannot be written.
func (m *merged) refuse(remote string) {
	if m.refused == nil {
		m.refused = map[string]bool{}
	}
	m.refused[remote] = true
}

// remotes are those that the mirror is of, as far as the local cluster says, in the order of the flags.
func (m *merged) remotes() (all []string) {
	for _, listed := range m.listed {
		all = append(all, listed.Remote)
	}
	for remote := range m.parts {
		all = append(all, remote)
	}
	slices.SortFunc(all, m.policy.compareRemotes)
	return slices.Compact(all)
}

// export is what a remote exports; nil: nothing, as far as is known.
func (m *merged) export(remote string) *Candidate {
	for i := range m.exports {
		if m.exports[i].Cluster == remote {
			return &m.exports[i]
		}
	}
	return nil
}

// list is the value of RemotesAnnotation. What is unknown stays listed.
func (m *merged) list() string {
	var all []Listed
	for _, c := range m.exports {
		all = append(all, Listed{c.Cluster, c.name()})
	}
	for _, listed := range m.listed {
		if slices.Contains(m.unknown, listed.Remote) && (m.configured(listed.Remote) || !m.parts[listed.Remote].Empty()) {
			all = append(all, listed)
		}
	}
	for remote, objects := range m.parts { // of a Service that was lost; of remotes that are not configured, only the slices say so
		source, recorded := objects.PartSource()
		if recorded && m.configured(remote) && slices.Contains(m.unknown, remote) && !slices.ContainsFunc(all, func(l Listed) bool { return l.Remote == remote }) {
			all = append(all, Listed{remote, source})
		}
	}
	slices.SortFunc(all, func(a, b Listed) int { return m.policy.compareRemotes(a.Remote, b.Remote) })
	return listText(all)
}

// configured tells a remote that is configured, or may be.
func (m *merged) configured(remote string) bool {
	return m.policy.Pending || m.policy.rank(remote) < len(m.policy.Order)
}

// kept is a remote of which nothing is known now, and whose ports the live Service may have, since it comes before all that
// export it: they stay. Empty: there is none.
func (m *merged) kept() string {
	for _, listed := range m.listed {
		unknown := m.configured(listed.Remote) && slices.Contains(m.unknown, listed.Remote)
		if unknown && (len(m.exports) == 0 || m.policy.compareRemotes(listed.Remote, m.exports[0].Cluster) < 0) {
			return listed.Remote
		}
	}
	return ""
}

// ports are those of the mirror, and the remote that they are of.
func (m *merged) ports() ([]corev1.ServicePort, string) {
	if remote := m.kept(); remote != "" {
		return m.service.Spec.Ports, remote
	}
	ports, _ := gateway.Selected(m.exports[0].Service)
	return mirrorPorts(ports), m.exports[0].Cluster
}

// decideMerged decides the Service of a merged mirror.
func (d *decision) decideMerged(live Objects) {
	m, others := d.merge(live.Service)
	if m.anothers() {
		d.conflict(d.wanted, "a mirror of remotes that are not configured already has this name: prune these remotes, or set another name template or namespace")
		return
	}
	for _, c := range others {
		d.conflict([]Candidate{c}, fmt.Sprintf("another Service of remote %s", c.Cluster)+takenName)
	}
	if !d.policy.Merges() {
		d.split(live, m)
		return
	}
	switch origin := d.snapshot.Origin; {
	case len(m.exports) == 0:
		d.keepOrRemove(live, m)
	case m.kept() != "":
	case origin != nil && origin.Successor != nil && !IsMerged(live.Service): // the name is taken until that is complete
		d.conflict(m.exports, fmt.Sprintf("the mirror of remote %s", origin.Cluster)+takenName)
		d.rename(live, origin.Candidate)
	default:
		d.merged = &m
		d.plan.merged = &mergedBasis{remotes: m.list()}
		d.update(live, m.exports[0])
	}
}

// anothers tells a mirror of which no remote is one that the flags name: it may be another daemon's, and is kept until
// it is pruned.
func (m *merged) anothers() bool {
	return len(m.listed) > 0 && !slices.ContainsFunc(m.listed, func(listed Listed) bool { return m.configured(listed.Remote) })
}

// keepOrRemove keeps a merged Service as it should be while the sources of its parts move to another key. What it lists
// stays until it goes with the last of them.
func (d *decision) keepOrRemove(live Objects, m merged) {
	m.exports = append(m.exports, d.snapshot.Moving...)
	if len(m.exports) == 0 || !IsMerged(live.Service) {
		d.removeMerged(live, m)
		return
	}
	slices.SortFunc(m.exports, func(a, b Candidate) int { return d.policy.compareRemotes(a.Cluster, b.Cluster) })
	if m.kept() != "" {
		return
	}
	d.merged = &m
	d.plan.merged = &mergedBasis{remotes: cmp.Or(listText(m.listed), m.list())}
	d.update(live, m.exports[0])
}

// removeMerged deletes a merged Service when its last part is gone.
func (d *decision) removeMerged(live Objects, m merged) {
	if slices.ContainsFunc(m.unknown, m.configured) || len(m.parts) > 0 {
		return
	}
	d.remove(live)
	d.plan.DropTombstone = d.snapshot.Memory.Tombstone != nil
}

// split has a merged mirror become one of the first remote that exports it, when mirrors are no longer merged. Nobody
// else takes the place of a remote of which nothing is known.
func (d *decision) split(live Objects, m merged) {
	if len(d.wanted) == 0 {
		d.keepOrRemove(live, m)
		return
	}
	all := slices.SortedStableFunc(slices.Values(d.wanted), func(a, b Candidate) int { return d.policy.compareRemotes(a.Cluster, b.Cluster) })
	source := all[0]
	for _, listed := range m.listed {
		if i := slices.IndexFunc(all, func(c Candidate) bool { return c.Cluster == listed.Remote && c.name() == listed.Source }); i >= 0 {
			source = all[i]
			break
		}
		if slices.Contains(m.unknown, listed.Remote) && m.configured(listed.Remote) {
			return
		}
	}
	d.conflict(slices.DeleteFunc(all, func(c Candidate) bool { return c.Cluster == source.Cluster && c.name() == source.name() }),
		fmt.Sprintf("the mirror of remote %s", source.Cluster)+takenName)
	d.update(live, source)
}

// mergedBasis is what the desired state of a merged mirror is computed from, besides what that of others is.
type mergedBasis struct {
	remotes string // of the Service: the value of RemotesAnnotation
	part    string // the remote whose part it is; empty: it is the Service
	ports   []corev1.ServicePort
	standby bool
}

// service sets what tells the Service of a merged mirror from another one.
func (m *mergedBasis) service(svc *corev1.Service) {
	svc.Labels[ClusterLabel] = MergedCluster
	svc.Annotations[RemotesAnnotation] = m.remotes
	delete(svc.Annotations, RemoteServiceAnnotation)
	delete(svc.Annotations, ClusterUIDAnnotation)
}

// PartSource is the Service that the slices of a part record.
func (o Objects) PartSource() (cache.ObjectName, bool) {
	for _, k := range SliceKinds {
		if slice := o.Get(k); slice != nil {
			return parseName(slice.GetAnnotations()[RemoteServiceAnnotation])
		}
	}
	return cache.ObjectName{}, false
}

// lost tells that a tombstone is that of this mirror, whether it was merged at that time or not.
func (b basis) lost(t *Tombstone) bool {
	return t != nil && (t.Cluster == b.owner() || t.Cluster == MergedCluster || b.owner() == MergedCluster && t.Cluster != "")
}

// owner is what the objects of a mirror, and its tombstone, have as the name of its remote.
func (b basis) owner() string {
	if b.merged != nil && b.merged.part == "" {
		return MergedCluster
	}
	return b.Cluster
}

// desired is the Service of a merged mirror. The addresses that it had before it was merged stay until the part that
// replaces them is complete.
func (m *merged) desired(b basis) Objects {
	want := Objects{Service: m.policy.service(b)}
	if !m.replaced(b) {
		for _, k := range addressKinds {
			want.Set(k, b.live.Get(k))
		}
	}
	return want
}

// replaced tells that the parts have what a mirror had before it was merged.
func (m *merged) replaced(b basis) bool {
	old := b.live
	old.Service = nil
	c := m.export(old.Cluster())
	if c == nil {
		return slices.Contains(m.known, old.Cluster())
	}
	if len(old.Endpointed()) == 0 {
		return true
	}
	if c.Gateway == nil || c.unpublished() || old.KeptBy(c.Gateway) {
		return false // what is not known yet is still in the old ones
	}
	part := b
	part.Candidate = *c
	part.tombstone = nil
	want, _, _ := m.desiredPart(part)
	for _, k := range SliceKinds {
		if want, live := want.Get(k), m.parts[c.Cluster].Get(k); (want == nil) != (live == nil) || want != nil && k.differs(live, want) {
			return false
		}
	}
	return true
}
