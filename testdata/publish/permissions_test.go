package publish

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

// unneeded are permissions that this test does not need.
func unneeded(g harness.Grant) bool {
	return g.Verb == "list" || // an API server that streams lists has a watch for all
		g.Resource == "events" && g.Verb == "patch" || // of one that is repeated
		g.Resource == "configmaps" && g.Verb == "delete" // an hour after the release
}

// Each permission is one that the publisher uses, and it lacks none: it creates, repairs and closes routes of each kind, finds
// foreign objects of their names, adds listeners, to the Gateway and by ListenerSets, and elects a leader.
func TestPermissions(t *testing.T) {
	e := newEnv(t)
	mark, err := paris.Mark()
	e.must(err)
	e.gatewayOf(http, tls)
	e.kubectl("label", "gateway/public", "service-mirror.io/listeners=managed")
	routes := []string{"httproute/%s.service-mirror", "tlsroute/%s.service-mirror", "tcproute/%s.5432.service-mirror", "udproute/%s.53.service-mirror"}
	e.published(routes, "spec/parentRefs")
	e.published([]string{"ingress/%s.service-mirror"}, "spec/ingressClassName", "--to", "ingress", "--ingress-class", class)
	e.publishedBySets()
	e.permissions(mark)
}

// publishedBySets has a program create a ListenerSet, change it and delete it.
func (e *env) publishedBySets() {
	e.Helper()
	e.gatewayWith(e.classOf("ListenerSet"), allowsOurs)
	listeners := func(want int) func() error {
		return func() error {
			sets, err := gateway.GatewayV1().ListenerSets(ours).List(e.ctx, metav1.ListOptions{})
			if err != nil {
				return err
			}
			got := 0
			for _, set := range sets.Items {
				got += len(set.Spec.Listeners)
			}
			if got != want || want == 0 && len(sets.Items) > 0 {
				return fmt.Errorf("%d ListenerSets have %d listeners, want %d", len(sets.Items), got, want)
			}
			return nil
		}
	}
	p := e.elected()
	for i, service := range []string{"by-set", "by-set-too"} {
		e.export(service, port("postgres", 5432))
		e.soon("listeners", listeners(i+1))
	}
	e.unexport("by-set")
	e.unexport("by-set-too")
	e.soon("the ListenerSet is gone", listeners(0))
	e.must(p.Stop(10 * time.Second))
}

// published has a program publish a Service, and another one beside foreign objects with the names of what it needs; someone
// removes a field of each object of the first, and both are unexported.
func (e *env) published(objects []string, field string, args ...string) {
	e.Helper()
	services := []string{fmt.Sprint("first-", len(objects)), fmt.Sprint("second-", len(objects))}
	for _, service := range services {
		e.export(service, port("http", 80), port("https", 443), port("postgres", 5432), udp("dns", 53))
	}
	record := e.recordOf(services[1]).with("metadata|labels", "{}")
	e.must(record.exist(e.ctx, e.dynamic(paris.Kubeconfig)))
	for _, object := range objects {
		e.foreign(fmt.Sprintf(object, services[1]))
	}
	p := e.elected(args...)
	for _, object := range objects {
		object = fmt.Sprintf(object, services[0])
		e.has(object, field)
		e.kubectl("patch", object, "--type=json", "-p", `[{"op":"remove","path":"/`+field+`"}]`)
		e.has(object, field)
	}
	e.soon("the conflicts are logged", func() error {
		if p.Log.Count("Conflict", services[1]) == 0 {
			return errors.New("they are not")
		}
		return nil
	})
	for _, service := range services {
		e.unexport(service)
	}
	for _, object := range objects {
		object = fmt.Sprintf(object, services[0])
		e.soon(object+" is gone", func() error {
			if out, err := paris.Kubectl(e.ctx, "get", "-n", e.id, "--ignore-not-found", object); err != nil || out != "" {
				return fmt.Errorf("%s, %v", out, err)
			}
			return nil
		})
	}
	e.must(p.Stop(10 * time.Second))
}

// elected starts the program as its Deployment does.
func (e *env) elected(args ...string) *harness.Process {
	e.Helper()
	cmd := exec.Command(harness.Program("service-mirror-race"), append(e.args(args...), "--leader-elect")...)
	cmd.Env = append(os.Environ(), "POD_NAMESPACE="+ours)
	return e.run(cmd)
}

func (e *env) kubectl(args ...string) string {
	e.Helper()
	out, err := paris.Kubectl(e.ctx, append([]string{"-n", e.id}, args...)...)
	e.must(err)
	return out
}

// has waits until an object has a field.
func (e *env) has(object, field string) {
	e.Helper()
	e.soon(object, func() error {
		out, err := paris.Kubectl(e.ctx, "get", "-n", e.id, object, "-o", "jsonpath={."+strings.ReplaceAll(field, "/", ".")+"}")
		if err == nil && out == "" {
			err = fmt.Errorf("it has no %s", field)
		}
		return err
	})
}

// foreign creates what someone else has under a name.
func (e *env) foreign(what string) {
	e.Helper()
	kind, name, _ := strings.Cut(what, "/")
	made := map[string]object{
		"httproute": e.route("x"), "tlsroute": e.plainRoute("TLSRoute", "x").with("spec|hostnames", "[x.example.com]"), "tcproute": e.plainRoute("TCPRoute", "x"),
		"udproute": e.plainRoute("UDPRoute", "x"), "ingress": e.ingress("x"),
	}[kind].with("metadata|name", name).with("metadata|labels", "{}").with("metadata|ownerReferences", "[]")
	e.must(made.exist(e.ctx, e.dynamic(paris.Kubeconfig)))
}

// permissions checks what the program did since a mark against what it may: nothing was refused, and nothing is granted that
// was not used, but for what is not needed.
func (e *env) permissions(since harness.Mark) {
	e.Helper()
	grants, err := paris.Grants(e.ctx, harness.PublisherAccount)
	e.must(err)
	unused := map[harness.Grant]bool{}
	for _, g := range grants {
		if slices.Contains([]string{"", ours, e.id}, g.Namespace) { // those in other tests' namespaces go with these
			unused[g] = true
		}
	}
	user := harness.ServiceAccountUser(ours, account)
	requests, err := paris.Requests(since, user, func(r harness.Request) bool {
		return r.User.Username == user && strings.HasPrefix(r.UserAgent, "service-mirror/")
	})
	e.must(err)
	for _, r := range requests {
		if r.ResponseStatus.Code == 403 && !strings.Contains(r.ResponseStatus.Message, "ValidatingAdmissionPolicy") {
			e.Errorf("refused: %v", r)
			continue
		}
		maps.DeleteFunc(unused, func(g harness.Grant, _ bool) bool { return unneeded(g) || g.Allows(r) })
	}
	if len(requests) == 0 || len(grants) == 0 || len(unused) > 0 {
		e.Errorf("of %d requests and %d permissions it never used %v", len(requests), len(grants), slices.Collect(maps.Keys(unused)))
	}
}
