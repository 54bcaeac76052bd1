package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
)

// The walk's requests to API servers. Steps run at once: none of this may end the test.

func servicePorts(ports []modelPort) (all []corev1.ServicePort) {
	for _, p := range ports {
		one := corev1.ServicePort{Name: p.name, Port: p.number, Protocol: p.protocol}
		if p.app != "" {
			one.AppProtocol = &p.app
		}
		all = append(all, one)
	}
	return all
}

// asService is the exported Service as it is made.
func (r *remote) asService(e *entry) *corev1.Service {
	return r.exported(e.name, func(svc *corev1.Service) {
		svc.Namespace, svc.Spec.Ports = r.env.id+"-"+e.namespace, servicePorts(e.ports)
	})
}

func setTeam(svc *corev1.Service, team string) {
	if delete(svc.Labels, "team"); team != "" {
		svc.Labels["team"] = team
	}
}

func (w *walk) createIn(c *cluster, svc *corev1.Service) error {
	_, err := c.CoreV1().Services(svc.Namespace).Create(w.ctx, svc, metav1.CreateOptions{})
	return err
}

func (w *walk) update(c *cluster, namespace, name string, change func(*corev1.Service)) error {
	services := c.CoreV1().Services(namespace)
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		svc, err := services.Get(w.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(svc)
		_, err = services.Update(w.ctx, svc, metav1.UpdateOptions{})
		return err
	})
}

func (w *walk) delete(c *cluster, namespace, name string) error {
	return c.CoreV1().Services(namespace).Delete(w.ctx, name, metav1.DeleteOptions{})
}

func (w *walk) createGateway(r *remote, now *modelRemote) error {
	err := w.createIn(r.cluster, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.id, Name: "gateway"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: w.gatewayPorts(now)},
	})
	if err != nil {
		return err
	}
	return w.setAddresses(r, now)
}

// gatewayPorts are those of the model, and one for the beacon.
func (w *walk) gatewayPorts(now *modelRemote) []corev1.ServicePort {
	return append(servicePorts(now.ports), corev1.ServicePort{Name: beacon, Port: w.beacons, Protocol: corev1.ProtocolSCTP})
}

func (w *walk) setAddresses(r *remote, now *modelRemote) error {
	ingress := []corev1.LoadBalancerIngress{}
	for _, address := range now.addresses {
		ingress = append(ingress, corev1.LoadBalancerIngress{IP: address})
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": ingress}}})
	if err != nil {
		return err
	}
	_, err = r.CoreV1().Services(w.id).Patch(w.ctx, "gateway", types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// deleteLondonNamespace deletes foreign objects, too.
func (w *walk) deleteLondonNamespace(name string) error {
	for _, e := range w.entries() {
		if e.home() == name {
			e.theirs = snapshots{}
		}
	}
	for _, f := range w.failing {
		if f.namespace == name {
			f.theirs = ownObjects{}
		}
	}
	return london.CoreV1().Namespaces().Delete(w.ctx, w.long(name), metav1.DeleteOptions{})
}

// createLondonNamespace waits until the one before it is gone.
func (w *walk) createLondonNamespace(name string) error {
	return w.until(func() error { return w.create(london, w.long(name)) })
}

// namespacesGone checks that no namespace is being deleted: the daemon tries again to write there until it is gone.
func (w *walk) namespacesGone() error {
	for _, name := range w.namespaces {
		if w.existing[name] {
			continue
		}
		if _, err := london.CoreV1().Namespaces().Get(w.ctx, w.long(name), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("namespace %s is being deleted (%v)", w.long(name), err)
		}
	}
	return nil
}

// until retries until it succeeds: the daemon may be quicker to use a name.
func (w *walk) until(try func() error) error {
	for deadline := time.Now().Add(restWithin); ; time.Sleep(time.Millisecond) {
		if err := try(); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// The steps of users in London.

func (w *walk) londonStep(e *entry, what string, act func(namespace, name string) error) *step {
	at := w.place(e, e.remote.naming)
	return &step{
		text: fmt.Sprintf("mirror %v: %s", e, what), touches: []string{"london/" + at.String()},
		act: func() error { return act(w.long(at.namespace), at.name) },
	}
}

// makeForeignService has a user create a Service of their own under a mirror's name,
// instead of what exists.
func (w *walk) makeForeignService() *step {
	e, ok := pick(w, w.entries(), w.usable)
	if !ok {
		return nil
	}
	e.since.interrupted, e.edited, e.wanted = true, true, true
	e.foreign = any1(w, withSelector, withEndpoints)
	kind := e.foreign
	return w.londonStep(e, "a user makes "+string(kind), func(namespace, name string) error {
		theirs := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app.kubernetes.io/managed-by": "helm"}},
			Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "mine", Port: 1234}}},
		}
		if kind == withSelector {
			theirs.Spec.Selector = map[string]string{"app": "mine"}
		}
		if err := w.until(func() error {
			if err := w.delete(london, namespace, name); err != nil && !apierrors.IsNotFound(err) {
				return err
			}
			made, err := london.CoreV1().Services(namespace).Create(w.ctx, theirs, metav1.CreateOptions{})
			if err == nil {
				e.theirs.service = ofService(made)
			}
			return err
		}); err != nil || kind == withSelector {
			return err
		}
		return w.putEndpoints(e, namespace, name)
	})
}

// putEndpoints has a user create Endpoints of their own, instead of what exists.
func (w *walk) putEndpoints(e *entry, namespace, name string) error {
	endpoints := london.CoreV1().Endpoints(namespace)
	return w.until(func() error {
		if err := endpoints.Delete(w.ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		made, err := endpoints.Create(w.ctx, &corev1.Endpoints{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Subsets: []corev1.EndpointSubset{{
				Addresses: []corev1.EndpointAddress{{IP: "192.0.2.1"}}, Ports: []corev1.EndpointPort{{Name: "mine", Port: 1}},
			}},
		}, metav1.CreateOptions{})
		if err == nil {
			e.theirs.endpoints = ofEndpoints(made)
		}
		return err
	})
}

func (w *walk) makeForeignEndpoints() *step {
	e, ok := pick(w, w.entries(), func(e *entry) bool { return w.free(e) || w.secure(e) })
	if !ok {
		return nil
	}
	if w.secure(e) {
		e.foreign, e.edited = underTheMirror, true
	} else {
		e.foreign = loneEndpoints
	}
	s := w.londonStep(e, "a user makes "+string(e.foreign), func(namespace, name string) error { return w.putEndpoints(e, namespace, name) })
	s.touches = append(s.touches, "far/"+e.String()) // not while it is exported, or no longer
	return s
}

func (w *walk) removeForeign() *step {
	e, ok := pick(w, w.entries(), func(e *entry) bool { return e.foreign != none })
	if !ok {
		return nil
	}
	kind := e.foreign
	e.foreign, e.edited = none, true
	// Foreign Endpoints cause no event: most of the time something else changes, too, so
	// that a rest need not wait.
	hint := (kind == loneEndpoints || kind == underTheMirror) && e.exported && w.rnd.IntN(5) > 0
	s := w.londonStep(e, "a user deletes "+string(kind), func(namespace, name string) error {
		e.theirs = snapshots{}
		var err error
		if kind == withSelector || kind == withEndpoints {
			err = w.delete(london, namespace, name)
		} else if err = london.CoreV1().Endpoints(namespace).Delete(w.ctx, name, metav1.DeleteOptions{}); apierrors.IsNotFound(err) {
			err = nil
		}
		if err != nil || !hint {
			return err
		}
		return w.update(w.far[e.remote.short].cluster, w.long(e.namespace), e.name, func(svc *corev1.Service) {
			svc.Annotations = map[string]string{"hint": time.Now().String()}
		})
	})
	s.touches = append(s.touches, "far/"+e.String())
	return s
}

// ours skips what the daemon has not created, or not yet.
func ours(labels map[string]string) bool {
	return labels["app.kubernetes.io/managed-by"] == "service-mirror"
}

func (w *walk) deleteMirrorService() *step {
	e, ok := pick(w, w.entries(), w.usable)
	if !ok {
		return nil
	}
	w.deleteMirror(e)
	return w.londonStep(e, "its Service is deleted by hand", func(namespace, name string) error {
		svc, err := london.CoreV1().Services(namespace).Get(w.ctx, name, metav1.GetOptions{})
		if err == nil && ours(svc.Labels) {
			err = w.delete(london, namespace, name)
		}
		return ignore(err, apierrors.IsNotFound)
	})
}

func (w *walk) deleteMirrorEndpoints() *step {
	e, ok := pick(w, w.entries(), w.usable)
	if !ok {
		return nil
	}
	e.edited = true
	return w.londonStep(e, "its Endpoints are deleted by hand", func(namespace, name string) error {
		return ignore(london.CoreV1().Endpoints(namespace).Delete(w.ctx, name, metav1.DeleteOptions{}), apierrors.IsNotFound)
	})
}

func ignore(err error, is func(error) bool) error {
	if is(err) {
		return nil
	}
	return err
}

func (w *walk) editMirrorService() *step {
	e, ok := pick(w, w.entries(), w.usable)
	if !ok {
		return nil
	}
	what := any1(w, "port", "selector", "type", "label", "own label")
	if what == "selector" {
		e.edited = true // Kubernetes empties the Endpoints
	}
	value := fmt.Sprint(w.rnd.IntN(1000))
	return w.londonStep(e, "its Service is edited by hand: "+what, func(namespace, name string) error {
		var noted bool
		var uid types.UID
		err := w.update(london, namespace, name, func(svc *corev1.Service) {
			noted = false
			if !ours(svc.Labels) {
				return
			}
			switch what {
			case "port":
				svc.Spec.Ports[0].Port = 7777
			case "selector":
				svc.Spec.Selector = map[string]string{"app": "nothing"}
			case "type":
				svc.Spec.Type = corev1.ServiceTypeNodePort
			case "label":
				setTeam(svc, "yellow")
			case "own label":
				metav1.SetMetaDataLabel(&svc.ObjectMeta, "note", value)
				noted, uid = true, svc.UID
			}
		})
		if err == nil && noted {
			e.note = note{uid: string(uid), value: value}
		}
		return ignore(ignore(err, apierrors.IsNotFound), apierrors.IsConflict)
	})
}

func (w *walk) editMirrorEndpoints() *step {
	e, ok := pick(w, w.entries(), w.usable)
	if !ok {
		return nil
	}
	e.edited = true
	return w.londonStep(e, "its Endpoints are edited by hand", func(namespace, name string) error {
		endpoints := london.CoreV1().Endpoints(namespace)
		err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
			now, err := endpoints.Get(w.ctx, name, metav1.GetOptions{})
			if err != nil || !ours(now.Labels) {
				return err
			}
			if len(now.Subsets) > 0 && len(now.Subsets[0].Addresses) > 0 {
				now.Subsets[0].Addresses[0].IP = "192.0.2.9"
			} else {
				now.Subsets = []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: "192.0.2.9"}}, Ports: []corev1.EndpointPort{{Port: 9}}}}
			}
			_, err = endpoints.Update(w.ctx, now, metav1.UpdateOptions{})
			return err
		})
		return ignore(ignore(err, apierrors.IsNotFound), apierrors.IsConflict)
	})
}

// starter starts the daemon with the flags that the model has now.
func (w *walk) starter() func() error {
	w.started()
	var remotes []*remote
	for _, r := range w.remotes {
		if !r.fault.removed {
			remotes = append(remotes, w.far[r.short])
		}
	}
	args := []string{"--copy-labels", "team"}
	switch {
	case w.merged != nil:
		args = append(args, w.mergedArgs()...)
		if w.merged.reversed {
			slices.Reverse(remotes)
		}
	case w.failing != nil:
		args = append(args, walkFailover...)
	}
	if w.template != templates[0] {
		args = append(args, "--name-template", w.template)
	}
	return func() error {
		w.d = w.daemon(remotes, args...)
		return w.until(func() error {
			if w.d.logged("Local caches are synced") == 0 {
				time.Sleep(10 * time.Millisecond)
				return fmt.Errorf("its caches are not synced")
			}
			return nil
		})
	}
}

// endDaemon keeps only the logs of the last daemons: a failure shows those of its time.
func (w *walk) endDaemon(end func(*daemon)) error {
	end(w.d)
	if w.d.logged("DATA RACE") > 0 {
		return fmt.Errorf("the race detector found something")
	}
	if w.ended = append(w.ended, w.d); len(w.ended) > 2 {
		w.ended[0].log.Reset()
		w.ended = w.ended[1:]
	}
	return nil
}
