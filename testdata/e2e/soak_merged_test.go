package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestRandomWalkOfMerged is TestRandomWalk with the mirrors of both remotes merged, and with --merge, --name-template and the
// order of the remotes changed at restarts. SOAK_SEED and SOAK_STEPS are as there.
func TestRandomWalkOfMerged(t *testing.T) { walkAtRandom(t, 300, newMergedWalk) }

// mergedModel is what the flags say of merging. What must exist is derived from deploy/guides/merged.md.
type mergedModel struct {
	first    bool // --merge=first, and not all
	reversed bool // the remotes are, in the flags
}

var mergedKinds = []kind{
	{24, (*walk).export},
	{4, (*walk).unexport},
	{20, (*walk).removeOneOfTwo},
	{3, (*walk).deleteExported},
	{3, (*walk).recreate},
	{8, (*walk).changePorts},
	{5, (*walk).changeLabels},
	{5, (*walk).changeAddresses},
	{2, (*walk).changeGatewayPorts},
	{1, (*walk).deleteGateway},
	{6, (*walk).makeGateway},
	{1, (*walk).removeNamespace},
	{8, (*walk).makeNamespaceAgain},
	{3, (*walk).deleteMergedService},
	{3, (*walk).editMergedService},
	{4, (*walk).editPart},
	{8, (*walk).trouble},
	{6, (*walk).healOne},
	{3, (*walk).killDaemon},
	{1, (*walk).stopDaemon},
	{8, (*walk).startAgain},
	{5, (*walk).restartInTrouble},
	{4, (*walk).removeRemote},
	{6, (*walk).addRemote},
	{3, (*walk).mergeOtherwise},
	{4, (*walk).renameMerged},
}

// sharedTemplates are values of --name-template by which mirrors are merged.
var sharedTemplates = []string{"{service}", "{service}-everywhere"}

func newMergedWalk(t *testing.T, seed uint64) *walk {
	w := newWalkIn(t, newSlicesEnv(t), newMergedModel(), seed)
	for _, m := range w.remotes {
		w.must(london.ConfigureNames(w.ctx, w.far[m.short].name, w.keys(m.naming)))
	}
	return w
}

func newMergedModel() *model {
	m := newWalkModel()
	m.merged, m.template = &mergedModel{}, sharedTemplates[0]
	m.rename()
	m.rested()
	return m
}

// sharedMirror is a name in London, and what the remotes export under it, in the order of the flags.
type sharedMirror struct {
	namespace, name string
	entries         []*entry
	mirror, before  string // what the mirror is called, and what it was called at the last rest
}

func (s sharedMirror) String() string { return s.namespace + "/" + s.mirror }

// renamed: it is there, or the one with the name of before.
func (s sharedMirror) renamed() bool { return s.mirror != s.before }

func (m *model) sharedMirrors() (all []sharedMirror) {
	for _, e := range m.remotes[0].entries {
		called := func(rule namingRule) string { return strings.ReplaceAll(rule.template, "{service}", e.name) }
		s := sharedMirror{namespace: e.namespace, name: e.name, mirror: called(e.remote.naming), before: called(e.remote.before)}
		for _, r := range m.remotes {
			i := slices.IndexFunc(r.entries, func(other *entry) bool { return other.namespace == e.namespace && other.name == e.name })
			s.entries = append(s.entries, r.entries[i])
		}
		if m.merged.reversed {
			slices.Reverse(s.entries)
		}
		all = append(all, s)
	}
	return all
}

// first is the remote's that the ports are of; nil: nobody exports it.
func (s sharedMirror) first() *entry {
	i := slices.IndexFunc(s.entries, (*entry).mirrorable)
	if i < 0 {
		return nil
	}
	return s.entries[i]
}

// parts are what the slices must have at rest; nil: of none.
func (m *model) parts(s sharedMirror) map[*entry][]string {
	all := map[*entry][]string{}
	var serves bool
	for _, e := range s.entries {
		if !e.mirrorable() || !m.existing[s.namespace] {
			continue
		}
		agreeing := *e
		agreeing.ports = slices.DeleteFunc(slices.Clone(e.ports), func(p modelPort) bool { return !p.among(s.first().ports) })
		lines := agreeing.leads()
		if m.merged.first && serves {
			for i := range lines {
				lines[i] += " not ready"
			}
		}
		if len(lines) > 0 {
			all[e], serves = lines, true
		}
	}
	return all
}

// partStays: neither this remote's export nor one that comes before it has changed, nor has a user edited anything.
func (s sharedMirror) partStays(e *entry) bool {
	return s.partWould(e) && !slices.ContainsFunc(s.entries[:slices.Index(s.entries, e)+1], func(other *entry) bool { return other.moves })
}

// partWould: the same, if the daemon had the same flags all the time.
func (s sharedMirror) partWould(e *entry) bool {
	return e.existed && !slices.ContainsFunc(s.entries[:slices.Index(s.entries, e)+1], func(other *entry) bool {
		return other.since != since{} || other.edited || other.deleted
	})
}

// keeps are the ports that its slice must have at any moment, whatever becomes of the other remotes: those that agree with all
// that these had since the last rest, in any order of the flags. None if it may have changed itself.
func (s sharedMirror) keeps(e *entry) []modelPort {
	if !e.exists() || e.since.changed || e.edited {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(e.ports), func(p modelPort) bool {
		return slices.ContainsFunc(s.entries, func(other *entry) bool {
			return other != e && slices.ContainsFunc(other.had, func(ports []modelPort) bool { return !p.among(ports) })
		})
	})
}

// among: one of these is the same port of a merged mirror.
func (p modelPort) among(all []modelPort) bool {
	return slices.ContainsFunc(all, func(other modelPort) bool {
		return p.name == other.name && p.number == other.number && p.protocol == other.protocol
	})
}

// kept are the lines that its slice had at the last rest and must still have, ready or not.
func (s sharedMirror) kept(e *entry) []string {
	ports := s.keeps(e)
	return slices.DeleteFunc(slices.Clone(e.lines), func(line string) bool {
		return !slices.ContainsFunc(ports, func(p modelPort) bool { return strings.Contains(line, " "+p.name+":") })
	})
}

// The steps.

func (w *walk) sharedStep(s sharedMirror, what string, act func(namespace string) error) *step {
	return &step{text: fmt.Sprintf("merged %v: %s", s, what), touches: []string{"london/" + s.String()}, act: func() error { return act(w.long(s.namespace)) }}
}

func (w *walk) pickShared() (sharedMirror, bool) {
	return pick(w, w.sharedMirrors(), func(s sharedMirror) bool { return w.existing[s.namespace] && !s.renamed() })
}

// removeOneOfTwo has one of two remotes not export a Service any more, while the slice of the other one must keep what it has.
func (w *walk) removeOneOfTwo() *step {
	s, ok := pick(w, w.sharedMirrors(), func(s sharedMirror) bool {
		return w.existing[s.namespace] && len(w.parts(s)) == 2 && len(s.keeps(s.entries[0])) > 0 && len(s.keeps(s.entries[1])) > 0
	})
	if !ok {
		return nil
	}
	e := any1(w, s.entries...)
	return any1(w, w.unexportOf, w.deleteExportOf)(e)
}

// agree has remotes export ports in common where a merged mirror is being renamed: a part that has no endpoints under the new
// name for want of them stays under the old one.
func (w *walk) agree() (all []*step) {
	for _, s := range w.sharedMirrors() {
		parts := w.parts(s)
		for _, e := range s.entries {
			if w.existing[s.namespace] && e.mirrorable() && len(parts[e]) == 0 && len(e.leads()) > 0 {
				e.change(false, func() { e.ports = slices.Clone(s.first().ports) })
				all = append(all, w.portsStep(e))
			}
		}
	}
	return all
}

func (w *walk) deleteMergedService() *step {
	s, ok := w.pickShared()
	if !ok {
		return nil
	}
	for _, e := range s.entries {
		w.deleteMirror(e)
	}
	return w.sharedStep(s, "its Service is deleted by hand", func(namespace string) error {
		return ignore(w.delete(london, namespace, s.mirror), apierrors.IsNotFound)
	})
}

func (w *walk) editMergedService() *step {
	s, ok := w.pickShared()
	if !ok {
		return nil
	}
	what := any1(w, "port", "type", "label", "affinity")
	for _, e := range s.entries {
		e.edited = true
	}
	return w.sharedStep(s, "its Service is edited by hand: "+what, func(namespace string) error {
		err := w.update(london, namespace, s.mirror, func(svc *corev1.Service) {
			switch what {
			case "port":
				svc.Spec.Ports[0].Port = 7777
			case "type":
				svc.Spec.Type = corev1.ServiceTypeNodePort
			case "label":
				setTeam(svc, "yellow")
			case "affinity":
				svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
			}
		})
		return ignore(ignore(err, apierrors.IsNotFound), apierrors.IsConflict)
	})
}

func (w *walk) editPart() *step {
	s, ok := w.pickShared()
	if !ok {
		return nil
	}
	remote, what := any1(w, s.entries...).remote.short, any1(w, "deleted", "ready", "port", "address")
	for _, e := range s.entries {
		e.edited = true
	}
	return w.sharedStep(s, fmt.Sprintf("its slice of %s is edited by hand: %s", remote, what), func(namespace string) error {
		name := s.mirror + "." + w.far[remote].name + ".ipv4"
		if what == "deleted" {
			return ignore(london.DiscoveryV1().EndpointSlices(namespace).Delete(w.ctx, name, metav1.DeleteOptions{}), apierrors.IsNotFound)
		}
		_, err := w.changeSlice(namespace, name, func(slice *discoveryv1.EndpointSlice) { editSlice(slice, what) })
		return ignore(ignore(err, apierrors.IsNotFound), apierrors.IsConflict)
	})
}

// mergeOtherwise restarts the daemon with another --merge, or with the remotes in another order.
func (w *walk) mergeOtherwise() *step {
	if !w.runs || w.renaming() {
		return nil
	}
	if w.rnd.IntN(2) > 0 {
		w.merged.first = !w.merged.first
	} else {
		w.merged.reversed = !w.merged.reversed
	}
	for _, e := range w.entries() {
		e.moves = true // its endpoints
	}
	text := fmt.Sprintf("the daemon is restarted, the first one alone serves: %v, in the other order: %v", w.merged.first, w.merged.reversed)
	return w.restart(text, (*daemon).stop, func() error { return nil })
}

// reconfigured is called when the flags name one remote more, or less: those that come after it may take its place.
func (m *mergedModel) reconfigured(r *modelRemote, all []sharedMirror) {
	r.moved = true
	for _, s := range all {
		of := slices.IndexFunc(s.entries, func(e *entry) bool { return e.remote == r })
		for _, e := range s.entries[of+1:] {
			e.moves = true
		}
	}
}

// renaming: all mirrors are, with the flags as they are otherwise.
func (m *model) renaming() bool {
	return m.merged != nil && m.remotes[0].naming != m.remotes[0].before
}

// renameMerged restarts the daemon with another --name-template.
func (w *walk) renameMerged() *step {
	if !w.runs || slices.ContainsFunc(w.remotes, func(r *modelRemote) bool { return !r.movable() }) {
		return nil
	}
	w.template = sharedTemplates[1-slices.Index(sharedTemplates, w.template)]
	return w.renameStep("--name-template is " + w.template)
}

// mergedArgs are the daemon's flags.
func (w *walk) mergedArgs() []string {
	if w.merged.first {
		return []string{useSlices, "--merge=first"}
	}
	return []string{useSlices, "--merge=all"}
}

// The checks.

// partsOf are the lines of the slices of a merged mirror that have some, by their names.
func (w *walk) partsOf(s sharedMirror) map[string][]string {
	all := map[string][]string{}
	for _, slice := range slices.Concat(w.seen[s.namespace].slices[s.mirror], w.seen[s.namespace].slices[s.before]) {
		if lines := fromSlice(slice); len(lines) > 0 {
			all[slice.Name] = slices.Sorted(slices.Values(lines))
		}
	}
	return all
}

// partName is the name of the slice of a remote.
func (w *walk) partName(mirror string, e *entry) string {
	return mirror + "." + w.far[e.remote.short].name + ".ipv4"
}

// checkShared checks what must be true at any moment: the Service is the same one while any remote exports it, and what
// happens to a remote changes only its own slice and those of remotes behind it: these keep all ports that agree.
func (w *walk) checkShared(s sharedMirror) error {
	svc, parts := w.seen[s.namespace].services[s.mirror], w.partsOf(s)
	for _, e := range s.entries {
		if s.renamed() {
			if err := w.checkRenamed(s, e, parts); err != nil {
				return err
			}
			continue
		}
		if e.keepsService() && (svc == nil || string(svc.UID) != e.uid) {
			return fmt.Errorf("%v had UID %s, as %v has been exported all the time, and now it is %s", s, e.uid, e, describeService(svc))
		}
		name := w.partName(s.mirror, e)
		if s.partStays(e) && !slices.Equal(parts[name], e.lines) {
			return fmt.Errorf("the part %s was %q, and is %q", name, e.lines, parts[name])
		}
		if kept := s.kept(e); !includes(parts[name], kept) {
			return fmt.Errorf("the part %s was %q and must keep %q, as only other remotes have changed, and is %q", name, e.lines, kept, parts[name])
		}
	}
	return nil
}

// keepsService: the Service is there as long as this one is exported. If the flags did not name the remote for a while, only as long
// as it has a slice.
func (e *entry) keepsService() bool {
	return e.exists() && !(e.remote.moved && (len(e.lines) == 0 || e.since.changed || e.edited))
}

// checkRenamed checks that a remote's part is complete under the old name until it is under the new one. Until the remotes before it are
// known there, it may serve, and with more ports than agree with theirs.
func (w *walk) checkRenamed(s sharedMirror, e *entry, parts map[string][]string) error {
	services := w.seen[s.namespace].services
	now, before := services[s.mirror], services[s.before]
	lines := s.kept(e)
	if s.partWould(e) {
		lines = e.lines
	}
	switch {
	case !e.keepsService():
		return nil
	case now == nil && before == nil:
		return fmt.Errorf("neither %s nor %s exists in %s", s.mirror, s.before, s.namespace)
	case before != nil && string(before.UID) != e.uid:
		return fmt.Errorf("%s, which moves to %v, had UID %s, and now it is %s", s.before, s, e.uid, describeService(before))
	case before != nil && includes(parts[w.partName(s.before, e)], lines), now != nil && includes(parts[w.partName(s.mirror, e)], lines):
		return nil
	}
	return fmt.Errorf("the part of %v moves from %s to %v, had %q, must keep %q, and there is %q", e, s.before, s, e.lines, lines, parts)
}

// includes: all of these lines are among others, ready or not.
func includes(all, lines []string) bool {
	all = idle(all)
	return !slices.ContainsFunc(idle(lines), func(line string) bool { return !slices.Contains(all, line) })
}

// rightShared checks a merged mirror at rest.
func (w *walk) rightShared(s sharedMirror) error {
	if err := w.checkShared(s); err != nil {
		return err
	}
	first, svc, want := s.first(), w.seen[s.namespace].services[s.mirror], map[string][]string{}
	for e, lines := range w.parts(s) {
		want[w.partName(s.mirror, e)] = slices.Sorted(slices.Values(lines))
	}
	if parts := w.partsOf(s); !maps.EqualFunc(parts, want, slices.Equal) {
		return fmt.Errorf("the parts of %v are %q, want %q", s, parts, want)
	}
	if first == nil {
		return nil // what is too much, the caller sees
	}
	if svc == nil {
		return fmt.Errorf("there is no mirror %v", s)
	}
	var ofPorts, listed []string
	for _, p := range first.ports {
		ofPorts = append(ofPorts, p.String())
	}
	for _, e := range s.entries {
		if e.mirrorable() {
			listed = append(listed, w.far[e.remote.short].name+"="+w.long(s.namespace)+"/"+s.name)
		}
	}
	slices.Sort(ofPorts)
	switch {
	case !ours(svc.Labels), svc.Labels["service-mirror.io/cluster"] != mergedService, svc.Labels["team"] != first.team, svc.Labels["other"] != "",
		svc.Annotations["service-mirror.io/remotes"] != strings.Join(listed, ","):
		return fmt.Errorf("merged mirror %v, of team %q and %q, has labels %v and annotations %v", s, first.team, listed, svc.Labels, svc.Annotations)
	case svc.Spec.Type != corev1.ServiceTypeClusterIP, len(svc.Spec.Selector) > 0, svc.Spec.ClusterIP == corev1.ClusterIPNone, svc.Spec.SessionAffinity != corev1.ServiceAffinityNone:
		return fmt.Errorf("%v is no ClusterIP Service without a selector: %+v", s, svc.Spec)
	case !slices.Equal(ports(svc), ofPorts):
		return fmt.Errorf("%v has ports %q, want %q", s, ports(svc), ofPorts)
	}
	return nil
}

// rightMerged checks that London is as the model says: at rest.
func (w *walk) rightMerged() error {
	if err := w.see(); err != nil {
		return err
	}
	for _, s := range w.sharedMirrors() {
		if !w.existing[s.namespace] {
			continue
		}
		if err := w.rightShared(s); err != nil {
			return err
		}
		all := w.seen[s.namespace]
		if n := len(all.slices[s.mirror]); s.first() == nil && (all.services[s.mirror] != nil || n > 0) {
			return fmt.Errorf("nobody exports %v, but %d slices are there and the Service is %s", s, n, describeService(all.services[s.mirror]))
		}
		if all.endpoints[s.mirror] != nil {
			return fmt.Errorf("Endpoints %v should not be there", s)
		}
	}
	for _, short := range w.namespaces {
		names := slices.Concat(slices.Collect(maps.Keys(w.seen[short].services)), slices.Collect(maps.Keys(w.seen[short].slices)))
		for _, name := range names {
			if !slices.ContainsFunc(w.sharedMirrors(), func(s sharedMirror) bool { return s.mirror == name }) {
				return fmt.Errorf("Service or slices of %s/%s should not be there", short, name)
			}
		}
	}
	return nil
}

// rememberedShared checks that what need not have changed has not, and remembers what is.
func (w *walk) rememberedShared() error {
	for _, s := range w.sharedMirrors() {
		svc, parts := w.seen[s.namespace].services[s.mirror], w.partsOf(s)
		if svc == nil || !w.existing[s.namespace] {
			for _, e := range s.entries {
				e.lines = nil
			}
			continue
		}
		for _, e := range s.entries {
			if e.existed && !e.since.interrupted && !e.forgotten && !s.renamed() && (e.deleted || e.keepsService()) && svc.Spec.ClusterIP != e.clusterIP {
				return fmt.Errorf("the ClusterIP of %v was %s and is %s", s, e.clusterIP, svc.Spec.ClusterIP)
			}
			e.uid, e.clusterIP, e.lines = string(svc.UID), svc.Spec.ClusterIP, parts[w.partName(s.mirror, e)]
		}
	}
	return nil
}

// litMerged checks that the beacon's change has arrived: each remote has one of its own then.
func (w *walk) litMerged() error {
	for _, m := range w.remotes {
		name := w.nameBy(m.naming, m, w.id, w.beacon(m.short))
		svc, err := london.CoreV1().Services(w.id).Get(w.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if svc.Labels["team"] != fmt.Sprint(w.beacons) {
			return fmt.Errorf("the last change in %s has not arrived", m.short)
		}
		var lines []string
		slice, err := london.DiscoveryV1().EndpointSlices(w.id).Get(w.ctx, name+"."+w.far[m.short].name+".ipv4", metav1.GetOptions{})
		if err == nil {
			lines = fromSlice(slice)
		} else if !apierrors.IsNotFound(err) {
			return err
		}
		leads := m.there && len(m.usable()) > 0
		arrived := slices.ContainsFunc(lines, func(line string) bool { return strings.HasSuffix(line, fmt.Sprintf(" %s:%d/SCTP", beacon, w.beacons)) })
		if leads != arrived || !leads && len(lines) > 0 {
			return fmt.Errorf("the last change of the gateway of %s has not arrived: %q", m.short, lines)
		}
	}
	return nil
}
