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

	"service-mirror.io/service-mirror/testdata/harness"
)

// unneeded are permissions that this test does not need.
func unneeded(g harness.Grant) bool {
	return g.Verb == "list" || // an API server that streams lists has a watch for all
		g.Resource == "events" && g.Verb == "patch" || // of one that is repeated
		g.Resource == "configmaps" && g.Verb == "delete" || // an hour after the release
		g.Resource == "services" && g.Verb == "get" // of a foreign alias that is created at the same time
}

// Each permission is one that the publisher uses, and it lacks none: it creates, repairs and closes routes of each kind, finds
// foreign objects of their names, adds listeners, to the Gateway and by ListenerSets, and elects a leader.
func TestPermissions(t *testing.T) {
	e := newEnv(t)
	_, err := paris.Kubectl(e.ctx, "delete", "lease", "-n", ours, "--ignore-not-found", account) // of the tests before
	e.must(err)
	mark, err := paris.Mark()
	e.must(err)
	e.gatewayOf(http, tls)
	e.kubectl("label", "gateway/public", "service-mirror.io/listeners=managed")
	routes := []string{"httproute/%s.service-mirror", "tlsroute/%s.service-mirror", "tcproute/%s.5432.service-mirror", "udproute/%s.53.service-mirror"}
	e.published(routes, "spec/parentRefs")
	e.published([]string{"ingress/%s.service-mirror"}, "spec/ingressClassName", "--to", "ingress", "--ingress-class", class)
	e.published([]string{"service/" + e.id + "--%s"}, "spec/externalName", "--to", "names")
	e.setsPublished()
	e.permissions(mark)
}

// setsPublished has a program add a ListenerSet, which someone edits.
func (e *env) setsPublished() {
	e.Helper()
	e.kubectl("label", "gateway/public", "service-mirror.io/listeners-")
	e.gatewayWith(e.classOf("ListenerSet"), allowsOurs)
	e.export("set", port("postgres", 5432))
	e.elected()
	const set = "listenerset/service-mirror-15000"
	e.has(set, "spec/listeners[0]/name")
	e.kubectl("patch", set, "--type=json", "-p", `[{"op":"replace","path":"/spec/listeners/0/name","value":"`+edited+`"}]`)
	e.has(set, "spec/listeners[0]/name")
	e.unexport("set")
	e.isGone(set)
}

// published has a program publish a Service, and another one beside foreign objects with the names of what it needs; someone
// removes a field of each object of the first, and both are unexported.
func (e *env) published(objects []string, field string, args ...string) {
	e.Helper()
	services := []string{fmt.Sprint("first-", len(args)), fmt.Sprint("second-", len(args))}
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
		change := `[{"op":"remove","path":"/` + field + `"}]`
		if field == "spec/externalName" { // which cannot be missing
			change = `[{"op":"replace","path":"/` + field + `","value":"` + edited + `"}]`
		}
		e.kubectl("patch", object, "--type=json", "-p", change)
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
		e.isGone(fmt.Sprintf(object, services[0]))
	}
	e.must(p.Stop(10 * time.Second))
}

// isGone waits until an object does not exist.
func (e *env) isGone(object string) {
	e.Helper()
	e.soon(object+" is gone", func() error {
		if out, err := paris.Kubectl(e.ctx, e.get(object, "--ignore-not-found")...); err != nil || out != "" {
			return fmt.Errorf("%s, %v", out, err)
		}
		return nil
	})
}

// elected starts the program as its Deployment does.
func (e *env) elected(args ...string) *harness.Process {
	e.Helper()
	cmd := exec.Command(harness.Program("service-mirror-race"), append(e.args(args...), "--leader-elect")...)
	cmd.Env = append(os.Environ(), "POD_NAMESPACE="+ours)
	return e.run(cmd)
}

// kubectl has kubectl do something with an object of the test.
func (e *env) kubectl(do, object string, args ...string) {
	e.Helper()
	_, err := paris.Kubectl(e.ctx, append([]string{do, object, "-n", e.namespaceOf(object)}, args...)...)
	e.must(err)
}

// namespaceOf is where an object is, as kubectl names it.
func (e *env) namespaceOf(object string) string {
	switch kind, _, _ := strings.Cut(object, "/"); kind {
	case "service": // an alias
		return exports
	case "listenerset":
		return ours
	}
	return e.id
}

// get are the arguments that read an object.
func (e *env) get(object string, more ...string) []string {
	return append([]string{"get", object, "-n", e.namespaceOf(object)}, more...)
}

// edited is what someone sets a field to that cannot be missing.
const edited = "edited.example.com"

// has waits until an object has a field.
func (e *env) has(object, field string) {
	e.Helper()
	e.soon(object, func() error {
		out, err := paris.Kubectl(e.ctx, e.get(object, "-o", "jsonpath={."+strings.ReplaceAll(field, "/", ".")+"}")...)
		if err == nil && (out == "" || out == edited) {
			err = fmt.Errorf("its %s is %q", field, out)
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
		"udproute": e.plainRoute("UDPRoute", "x"), "ingress": e.ingress("x"), "service": e.alias("x"),
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
		if slices.Contains([]string{"", ours, exports, e.id}, g.Namespace) { // those in other tests' namespaces go with these
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
