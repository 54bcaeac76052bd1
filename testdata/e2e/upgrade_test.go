package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// lastVersion is the commit of the last version whose mirrors do not have the annotation.
	lastVersion = "13977e5"
	// ownName is the annotation in which a mirror's objects record the mirror.
	ownName = "service-mirror.io/mirror"
)

// buildLast builds the last version's daemon from the repository's history, once, in the
// directory that goes with the clusters.
var buildLast = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp(filepath.Dir(london.dir), "last-version-")
	if err != nil {
		return "", err
	}
	root, err := output("", "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return "", err
	}
	archive, source := filepath.Join(dir, "source.tar"), filepath.Join(dir, "source")
	if err := os.Mkdir(source, 0o700); err != nil {
		return "", err
	}
	for _, step := range []struct {
		dir  string
		args []string
	}{
		{root, []string{"git", "archive", "--output", archive, lastVersion}},
		{source, []string{"tar", "-xf", archive}},
		// With the race detector, as the daemon under test is: the packages are built already.
		{source, []string{"go", "build", "-race", "-buildvcs=false", "-o", filepath.Join(dir, "service-mirror"), "."}},
	} {
		if _, err := output(step.dir, step.args...); err != nil {
			return "", err
		}
	}
	return filepath.Join(dir, "service-mirror"), nil
})

// output runs a command to its end and returns what it prints, without the line's end.
func output(dir string, args ...string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// runLast runs the last version's daemon while f runs, and stops it then. It does not record in an object which mirror
// that is part of, so it is an administrator, to whom the policies do not apply.
func (e *env) runLast(remotes []*remote, args []string, f func()) {
	e.Helper()
	program, err := buildLast()
	e.must(err)
	args = slices.Concat([]string{"--kubeconfig", e.local.Kubeconfig, "--export-selector", exportLabel + "=" + e.id}, args)
	for _, r := range remotes {
		args = append(args, "--remote", r.flag())
	}
	var log lockedBuffer
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &log, &log
	e.must(cmd.Start())
	stop := sync.OnceFunc(func() {
		kill := time.AfterFunc(15*time.Second, func() { cmd.Process.Kill() })
		defer kill.Stop()
		if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
			e.Errorf("the last version's daemon: %v", err)
		}
		if e.Failed() {
			e.Logf("log of the last version:\n%s", log.String())
		}
	})
	e.Cleanup(stop)
	f()
	stop()
}

// objects are all objects of the mirrors in a test's namespace, by kind and name.
func (e *env) objects() (map[string]metav1.Object, error) {
	all := map[string]metav1.Object{}
	ours := metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=service-mirror"}
	services, err := e.local.CoreV1().Services(e.id).List(e.ctx, ours)
	if err != nil {
		return nil, err
	}
	for i := range services.Items {
		all["services "+services.Items[i].Name] = &services.Items[i]
	}
	endpoints, err := e.local.CoreV1().Endpoints(e.id).List(e.ctx, ours)
	if err != nil {
		return nil, err
	}
	for i := range endpoints.Items {
		all["endpoints "+endpoints.Items[i].Name] = &endpoints.Items[i]
	}
	ours.LabelSelector += ",endpointslice.kubernetes.io/managed-by=service-mirror.io" // not those that Kubernetes copies labels to
	slices, err := e.local.DiscoveryV1().EndpointSlices(e.id).List(e.ctx, ours)
	if err != nil {
		return nil, err
	}
	for i := range slices.Items {
		all["endpointslices "+slices.Items[i].Name] = &slices.Items[i]
	}
	return all, nil
}

// exportDozen exports Services of many kinds, and returns their names. "incomplete" has a
// port that the gateway does not serve.
func (r *remote) exportDozen() (names []string) {
	r.env.Helper()
	change := map[string]func(*corev1.Service){
		"incomplete": func(svc *corev1.Service) {
			svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP})
		},
		"affinity": func(svc *corev1.Service) { svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP },
		"edited":   func(*corev1.Service) {},
		"ports": func(svc *corev1.Service) {
			h2c := "kubernetes.io/h2c"
			svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: "grpc", Port: 9090, AppProtocol: &h2c})
		},
		"node-port": func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeNodePort },
	}
	for i := range 7 {
		change[fmt.Sprintf("plain%d", i)] = func(*corev1.Service) {}
	}
	for name, f := range change {
		r.export(name, f)
		names = append(names, name)
	}
	return names
}

// This version takes over the last one's mirrors: it updates each object once, to add an
// annotation.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	for kind, args := range map[string][]string{"endpoints": nil, "endpointslices": {useSlices}} {
		t.Run(kind, func(t *testing.T) {
			e := newSlicesEnv(t)
			r := e.remote(paris)
			r.gateway("203.0.113.1", "203.0.113.2")
			names := r.exportDozen()
			c := copies{}
			e.runLast([]*remote{r}, args, func() {
				for _, name := range names {
					e.soon("the last version's mirrors", r.hasService(name), r.hasBothAddresses(name))
				}
				e.change(london, r.mirror("edited"), func(svc *corev1.Service) {
					svc.Labels["team"], svc.Annotations["note"] = "theirs", "theirs"
				})
			})
			e.copyService(c, e.service(r.mirror("edited")), e.id, "my-own", map[string]string{"app": "theirs"})
			untouched := c.untouched(e)
			before := e.mirrorObjects(r, 2*len(names))
			identities, since := e.identities(), london.mark(t)

			d := e.daemon([]*remote{r}, append(args, listening...)...)
			e.soon("the annotation", func() error { return e.annotated(r, before) })
			counted := d.measures(map[string]float64{
				r.state("mirrored"): float64(len(names) - 1), r.state("incomplete"): 1, r.state("conflict"): 0, r.state("orphan"): 0,
				r.problem("Conflict"): 0, r.problem("WriteFailed"): 0, r.problem("Overwritten"): 0,
			})
			e.stays("the mirrors", func() error { return e.annotated(r, before) }, counted, untouched)
			e.updatedOnce(before, since)
			e.sameIdentities(identities)

			d.stop()
			since = london.mark(t)
			d = e.daemon([]*remote{r}, append(args, listening...)...)
			e.soon("the mirrors after a restart", d.measures(map[string]float64{r.state("mirrored"): float64(len(names) - 1), r.state("incomplete"): 1}))
			e.stays("the mirrors after a restart", func() error { return e.annotated(r, before) }, untouched)
			e.noWrites(since)
			e.sameIdentities(identities)
		})
	}
}

// hasBothAddresses checks that kube-proxy has the gateway's two addresses for a mirror.
func (r *remote) hasBothAddresses(name string) func() error {
	return func() error {
		list, err := r.env.local.DiscoveryV1().EndpointSlices(r.env.id).List(r.env.ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=" + r.mirror(name)})
		if err == nil && !slices.ContainsFunc(list.Items, func(slice discoveryv1.EndpointSlice) bool { return len(slice.Endpoints) == 2 && len(slice.Ports) > 0 }) {
			err = fmt.Errorf("%s has no EndpointSlice with both addresses", r.mirror(name))
		}
		return err
	}
}

// mirrorObjects are the objects of a remote's mirrors, of which there must be so many.
func (e *env) mirrorObjects(r *remote, want int) map[string]metav1.Object {
	e.Helper()
	all, err := e.objects()
	e.must(err)
	for what, obj := range all {
		if !strings.Contains(obj.GetName(), "-"+r.name) {
			delete(all, what)
		}
	}
	if len(all) != want {
		e.Fatalf("the last version has made %d objects, want %d", len(all), want)
	}
	return all
}

// annotated checks that all objects are as before, but for the annotation.
func (e *env) annotated(r *remote, before map[string]metav1.Object) error {
	now, err := e.objects()
	if err != nil {
		return err
	}
	for what, was := range before {
		is, exists := now[what]
		if !exists {
			return fmt.Errorf("%s is gone", what)
		}
		_, mirror, _ := strings.Cut(what, " ")
		for _, family := range []string{"-ipv4", "-ipv6"} {
			if strings.HasPrefix(what, "endpointslices ") {
				mirror = strings.TrimSuffix(mirror, family)
			}
		}
		if got, want := is.GetAnnotations()[ownName], e.id+"/"+mirror; got != want {
			return fmt.Errorf("%s has the annotation %s %q, want %q", what, ownName, got, want)
		}
		if was, is := withoutAnnotation(was), withoutAnnotation(is); was != is {
			return fmt.Errorf("%s was\n%s\nand is\n%s", what, was, is)
		}
	}
	return nil
}

// withoutAnnotation is an object without what an update that adds the annotation changes.
func withoutAnnotation(obj metav1.Object) string {
	switch typed := obj.(type) {
	case *corev1.Service:
		obj = typed.DeepCopy()
	case *corev1.Endpoints:
		obj = typed.DeepCopy()
	case *discoveryv1.EndpointSlice:
		obj = typed.DeepCopy()
	}
	annotations := obj.GetAnnotations()
	delete(annotations, ownName)
	if len(annotations) == 0 {
		obj.SetAnnotations(nil)
	}
	obj.SetResourceVersion("")
	obj.SetManagedFields(nil)
	return snapshot(obj)
}

// updatedOnce checks that the daemon has written each object once since a mark, and nothing else.
func (e *env) updatedOnce(objects map[string]metav1.Object, since auditMark) {
	e.Helper()
	var got, want []string
	for _, w := range e.local.writes(e.T, e.id, since) {
		got = append(got, fmt.Sprintf("%s %s %s: %d", w.Verb, w.ObjectRef.Resource, w.ObjectRef.Name, w.ResponseStatus.Code))
	}
	for what := range objects {
		want = append(want, "update "+what+": 200")
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		e.Errorf("the daemon wrote\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
