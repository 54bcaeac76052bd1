package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// allow allows a remote's account something in the test's namespace; the same again after disallow.
func (r *remote) allow(name string, rule rbacv1.PolicyRule) {
	r.env.Helper()
	r.allowIn(r.env.id, name, rule)
}

// allowIn allows it in a namespace.
func (r *remote) allowIn(namespace, name string, rule rbacv1.PolicyRule) {
	r.env.Helper()
	_, err := r.RbacV1().Roles(namespace).Create(r.env.ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{rule}}, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		r.env.must(err)
	}
	_, err = r.RbacV1().RoleBindings(namespace).Create(r.env.ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: r.env.id, Name: r.env.id}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
	}, metav1.CreateOptions{})
	r.env.must(err)
}

func (r *remote) disallow(name string) {
	r.env.Helper()
	r.env.must(r.RbacV1().RoleBindings(r.env.id).Delete(r.env.ctx, name, metav1.DeleteOptions{}))
}

var recordsRule = rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list", "watch"}}

// publishedPort is a port of a record.
type publishedPort struct {
	Port     int32  `json:"port"`
	Protocol string `json:"protocol"`
	Gateway  int32  `json:"gateway,omitempty"`
	Class    string `json:"class"`
	Shared   bool   `json:"shared,omitempty"`
	Problem  string `json:"problem,omitempty"`
}

// publish writes the record of an exported Service as service-mirror publish does; the namespace of the test is the
// publisher's, too.
func (r *remote) publish(service string, ready bool, ports ...publishedPort) {
	r.env.Helper()
	svc, err := r.CoreV1().Services(r.env.id).Get(r.env.ctx, service, metav1.GetOptions{})
	r.env.must(err)
	text, err := json.Marshal(map[string]any{"namespace": svc.Namespace, "name": svc.Name, "uid": svc.UID, "ports": ports, "ready": ready})
	r.env.must(err)
	r.record(service, string(text))
}

// record writes a record with this text.
func (r *remote) record(service, text string) {
	r.env.Helper()
	api := r.CoreV1().ConfigMaps(r.env.id)
	configMap := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: r.env.id + "." + service, Labels: map[string]string{"service-mirror.io/record": "v1"}},
		Data:       map[string]string{"record.json": text},
	}
	_, err := api.Create(r.env.ctx, configMap, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = api.Update(r.env.ctx, configMap, metav1.UpdateOptions{})
	}
	r.env.must(err)
}

// publisher is a remote whose gateway has the port 8080 and the TCP ports from 15000 to 15003.
func (e *env) publisher() *remote {
	e.Helper()
	r := e.remote(paris)
	r.keys = ",records=" + e.id
	r.gateway(reservedGateway)
	e.change(paris, "gateway", func(svc *corev1.Service) {
		for port := int32(15000); port <= 15003; port++ {
			svc.Spec.Ports = append(svc.Spec.Ports, gatewayPort(port, corev1.ProtocolTCP))
		}
	})
	return r
}

func pg(gateway int32) publishedPort {
	return publishedPort{Port: 5432, Protocol: "TCP", Gateway: gateway, Class: "tcp"}
}

func TestRecords(t *testing.T) {
	e := newEnv(t)
	r := e.publisher()
	r.allow("records", recordsRule)
	for _, name := range []string{"postgres", "rival"} {
		r.postgres(name)
	}
	r.export("bar")
	r.publish("postgres", true, pg(15000))
	since := paris.mark(t)
	d := e.daemon([]*remote{r})
	e.soon("by its record", r.leads("postgres", to("pg:15000", reservedGateway)...), r.slicesLead("postgres", to("pg:15000", reservedGateway)...))
	e.soon("without one", r.leads("rival"), r.leads("bar", to("http:8080", reservedGateway)...))
	before := e.identities()

	mark := london.mark(t)
	r.publish("rival", true, pg(15001))
	e.soon("one comes", r.leads("rival", to("pg:15001", reservedGateway)...))
	for _, write := range london.writes(t, e.id, mark) {
		if name := write.ObjectRef.Name; name != "" && !strings.HasPrefix(name, r.mirror("rival")) && write.ObjectRef.Resource != "events" {
			t.Errorf("another mirror is written: %v", write)
		}
	}
	r.publish("bar", true, publishedPort{Port: 80, Protocol: "TCP", Gateway: 15003, Class: "http", Shared: true})
	e.soon("HTTP, too", r.leads("bar", to("http:15003", reservedGateway)...))
	r.publish("postgres", true, pg(15002))
	e.soon("it changes", r.leads("postgres", to("pg:15002", reservedGateway)...))
	r.publish("bar", true, publishedPort{Port: 80, Protocol: "TCP", Class: "http", Problem: "the Gateway has no listener for it"})
	e.soon("it is not routed", r.leads("bar"))
	e.logs(d, e.id+"/bar", "PortNotServed", "the Gateway has no listener for it")
	r.publish("bar", false, publishedPort{Port: 80, Protocol: "TCP", Gateway: 8080, Class: "http", Shared: true})
	e.logs(d, e.id+"/bar", "NoReadyEndpoint", "the exported Service has no ready endpoint")
	e.soon("it stays routed", r.leads("bar", to("http:8080", reservedGateway)...))

	// A record that is malformed is one mirror's problem.
	r.record("rival", "<html>")
	e.soon("a malformed one is ignored", r.leads("rival"))
	e.logs(d, e.id+"/rival", "PortNotServed", "malformed record")
	e.must(r.leads("postgres", to("pg:15002", reservedGateway)...)())
	// Nor does one give a Service what an older one has alone.
	r.publish("rival", true, pg(15002))
	e.logs(d, e.id+"/rival", "15002/TCP, which is exclusive to "+e.id+"/postgres")
	e.must(paris.CoreV1().ConfigMaps(e.id).Delete(e.ctx, e.id+".postgres", metav1.DeleteOptions{}))
	e.soon("it is free", r.leads("rival", to("pg:15002", reservedGateway)...), r.leads("postgres"))
	r.publish("postgres", true, pg(15002))
	e.soon("the older one has it", r.leads("rival"), r.leads("postgres", to("pg:15002", reservedGateway)...))
	e.sameIdentities(before)

	// One of the Service before it is not its own.
	e.remove(paris, "rival")
	r.postgres("rival")
	e.logs(d, e.id+"/rival", "another UID")
	r.publish("rival", true, pg(15001))
	e.soon("until it follows", r.leads("rival", to("pg:15001", reservedGateway)...))

	for _, request := range paris.requests(t, e.id, since) {
		if request.ObjectRef.Resource == "configmaps" && (request.ObjectRef.Namespace != e.id || !slices.Contains([]string{"list", "watch"}, request.Verb) ||
			!strings.Contains(request.RequestURI, "labelSelector=service-mirror.io%2Frecord%3Dv1")) {
			t.Errorf("not what is needed: %v of %q", request, request.RequestURI)
		}
	}
}

// Records that must not be read are not known, which is not that there are none.
func TestRecordsThatAreForbidden(t *testing.T) {
	e := newEnv(t)
	r := e.publisher()
	r.allow("records", recordsRule)
	r.postgres("postgres")
	r.publish("postgres", true, pg(15000))
	d := e.daemon([]*remote{r})
	e.soon("by its record", r.leads("postgres", to("pg:15000", reservedGateway)...))
	d.stop()
	mark := london.mark(t)
	r.disallow("records")
	d = e.daemon([]*remote{r})
	e.logs(d, "watch of records in "+e.id, "forbidden")
	r.export("bar")
	e.stays("what was known", r.leads("postgres", to("pg:15000", reservedGateway)...))
	e.logs(d, e.id+"/bar", "the records of the remote's publisher have not been read yet")
	for _, write := range london.writes(t, e.id, mark) {
		if strings.HasPrefix(write.ObjectRef.Name, r.mirror("postgres")) {
			t.Errorf("it is written: %v", write)
		}
	}
	// What the gateway says is followed all the same.
	r.gateway("203.0.113.2")
	e.soon("another address", r.leads("postgres", to("pg:15000", "203.0.113.2")...))
	r.allow("records", recordsRule)
	r.publish("postgres", true, pg(15001))
	e.soon("they may be read", r.leads("postgres", to("pg:15001", "203.0.113.2")...), r.leads("bar", to("http:8080", "203.0.113.2")...))
}

// aRecord is a ConfigMap in the place of a record, of any name.
func (r *remote) aRecord(name, text string) error {
	_, err := r.CoreV1().ConfigMaps(r.env.id).Create(r.env.ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"service-mirror.io/record": "v1", "crowd": strconv.FormatBool(strings.Contains(name, ".crowd-"))}},
		Data:       map[string]string{"record.json": text},
	}, metav1.CreateOptions{})
	return err
}

// claiming is the text of a record that has a gateway port alone.
func claiming(namespace, name, uid string, gateway int32) string {
	return fmt.Sprintf(`{"namespace":%q,"name":%q,"uid":%q,"ready":true,"ports":[{"port":5432,"protocol":"TCP","gateway":%d,"class":"tcp"}]}`, namespace, name, uid, gateway)
}

// A hostile remote's records are each reported with the mirror that they are about; they change no other mirror of that
// remote, none of another one, and nothing that is no mirror.
func TestHostileRecords(t *testing.T) {
	e := newEnv(t)
	hostile, other := e.publisher(), e.remote(berlin)
	hostile.allow("records", recordsRule)
	other.gateway("203.0.113.9")
	other.export("bar")
	hostile.export("bar")
	for _, name := range []string{"good", "thief", "html", "huge", "many", "outdated", "liar"} {
		hostile.postgres(name) // good is the oldest, or the first by name of those of its second
	}
	hostile.publish("good", true, pg(15000))
	hostile.publish("thief", true, pg(15000))
	hostile.record("html", "<html>")
	hostile.record("huge", claiming(e.id, "huge", "u", 15001)+strings.Repeat(" ", 900_000))
	hostile.record("many", `{"namespace":"`+e.id+`","name":"many","uid":"u","ports":[`+strings.Repeat(`{"port":1},`, 200)+`{"port":2}]}`)
	hostile.record("outdated", claiming(e.id, "outdated", "another-uid", 15001))
	hostile.record("liar", claiming(e.id, "good", "u", 15001))
	e.must(hostile.aRecord("default.kubernetes", claiming("default", "kubernetes", "u", 15001)))
	e.must(hostile.aRecord("kube-system.kube-dns", claiming("kube-system", "kube-dns", "u", 15001)))
	e.must(hostile.aRecord("no-service", claiming(e.id, "good", "u", 15001)))

	hostile.keys += ",max-services=20000" // or 10,000 records more would be too many
	d := e.daemon([]*remote{hostile, other}, listening...)
	good, others := hostile.leads("good", to("pg:15000", reservedGateway)...), other.leads("bar", to("http:8080", "203.0.113.9")...)
	within := func(what string, checks ...func() error) {
		t.Helper()
		for _, check := range checks {
			e.eventually(time.Minute, what, check)
		}
	}
	within("what is right", good, others, hostile.leads("bar", to("http:8080", reservedGateway)...))
	for name, words := range map[string]string{
		"thief": "15000/TCP, which is exclusive to " + e.id + "/good", "html": "malformed record", "huge": "more than 16384", "many": "201 ports, more than 100",
		"outdated": "another UID", "liar": "does not match its name",
	} {
		within(name+" is reported", d.reports(hostile.mirror(name), words), hostile.leads(name))
	}
	since := london.mark(t)
	d.crowd(hostile, good, others, within)
	for _, write := range london.writes(t, e.id, since) {
		if ref := write.ObjectRef; ref.Resource != "events" && ref.Name != "" && ref.Namespace != e.id {
			t.Errorf("written outside the test's namespace: %v", write)
		}
	}
}

// reports checks that the page has a problem with a mirror's ports, in these words.
func (d *daemon) reports(mirror, words string) func() error {
	return func() error {
		p, err := d.page()
		if err != nil {
			return err
		}
		for _, row := range p.Mirrors {
			for _, problem := range row.Problems {
				if row.Name == mirror && problem.Reason == "PortNotServed" && strings.Contains(problem.Message, words) {
					return nil
				}
			}
		}
		return fmt.Errorf("the page does not say %q of %s", words, mirror)
	}
}

// crowd has a remote write 10,000 more records that all have one port alone, beside one that is right.
func (d *daemon) crowd(r *remote, good, others func() error, within func(what string, checks ...func() error)) {
	e := r.env
	e.Helper()
	const n, exported = 10_000, 120
	r.postgres("last")
	r.publish("last", true, pg(15003))
	within("the last one, alone", r.leads("last", to("pg:15003", reservedGateway)...))
	for i := range exported {
		r.postgres(fmt.Sprint("crowd-", i))
	}
	uids := map[string]string{}
	list, err := r.CoreV1().Services(e.id).List(e.ctx, metav1.ListOptions{})
	e.must(err)
	for _, svc := range list.Items {
		uids[svc.Name] = string(svc.UID)
	}
	begin := time.Now()
	numbers := make(chan int)
	failures := make(chan error, n)
	var writers sync.WaitGroup
	for range 16 {
		writers.Go(func() {
			for i := range numbers {
				name := fmt.Sprint("crowd-", i)
				if err := r.aRecord(e.id+"."+name, claiming(e.id, name, cmp.Or(uids[name], "u"), 15003)); err != nil {
					failures <- err
				}
			}
		})
	}
	for i := range n {
		numbers <- i
	}
	close(numbers)
	writers.Wait()
	close(failures)
	for err := range failures {
		e.must(err)
	}
	e.Logf("%d records were written in %v", n, time.Since(begin).Round(time.Second))
	const nobodys = "gateway port 15003/TCP is not used"
	for _, name := range []string{"last", "crowd-0", fmt.Sprint("crowd-", exported-1)} {
		within(name+" is reported", d.reports(r.mirror(name), nobodys), r.leads(name))
	}
	within("the others are unharmed", good, others)
	begin = time.Now()
	r.publish("good", true, pg(15002))
	within("good moves", r.leads("good", to("pg:15002", reservedGateway)...), others)
	e.Logf("a change took %v beside them", time.Since(begin).Round(time.Millisecond))
	e.must(r.CoreV1().ConfigMaps(e.id).DeleteCollection(e.ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "crowd=true"}))
	within("the last one has its port again", r.leads("last", to("pg:15003", reservedGateway)...), others)
}
