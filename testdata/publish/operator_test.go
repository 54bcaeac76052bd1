package publish

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	web "net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

// once runs the program until it exits, and wants this exit code. It returns what it prints.
func (e *env) once(code int, args ...string) string {
	e.Helper()
	var out, log bytes.Buffer
	cmd := exec.CommandContext(e.ctx, harness.Program("service-mirror-race"), args...)
	cmd.Stdout, cmd.Stderr = &out, &log
	err := cmd.Run()
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		e.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code || strings.Contains(log.String(), "DATA RACE") {
		e.Errorf("%v: exit code %d, want %d\n%s%s", args, got, code, &out, &log)
	}
	return out.String() + log.String()
}

// says wants, in an output, a line for each list of texts that has all of them.
func (e *env) says(out string, lines ...[]string) {
	e.Helper()
	for _, texts := range lines {
		if !slices.ContainsFunc(strings.Split(out, "\n"), func(line string) bool {
			return !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) })
		}) {
			e.Errorf("no line has %q:\n%s", texts, out)
		}
	}
}

// accept has an implementation say that the Gateway is in order.
func (e *env) accept() {
	e.Helper()
	gateways := gateway.GatewayV1().Gateways(e.id)
	gw, err := gateways.Get(e.ctx, "public", metav1.GetOptions{})
	e.must(err)
	gw.Status.Conditions = nil
	for _, of := range []string{"Accepted", "Programmed"} {
		gw.Status.Conditions = append(gw.Status.Conditions, metav1.Condition{Type: of, Status: metav1.ConditionTrue, Reason: of, ObservedGeneration: gw.Generation, LastTransitionTime: metav1.Now()})
	}
	_, err = gateways.UpdateStatus(e.ctx, gw, metav1.UpdateOptions{})
	e.must(err)
}

// A check says what will be published and what will not, and why; it writes nothing.
func TestCheck(t *testing.T) {
	e := newEnv(t)
	mark, err := paris.Mark()
	e.must(err)
	missing := e.once(1, e.args("--check")...)
	e.says(missing, []string{"- ", "Gateway " + e.id + "/public does not exist", "--gateway"}, []string{"! ", "no exported Services: label one"}, []string{"check failed: "})

	e.gatewayOf(http)
	e.says(e.once(0, e.args("--check")...), []string{"! ", "Gateway " + e.id + "/public: Accepted is not true: Pending"}, []string{"! ", "GatewayClass none", "does not exist"})

	e.must(harness.Eventually(soon, "GatewayClass", func() error {
		_, err := gateway.GatewayV1().GatewayClasses().Create(e.ctx, &gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "none"},
			Spec: gatewayv1.GatewayClassSpec{ControllerName: "example.com/none"}}, metav1.CreateOptions{})
		return err
	}))
	defer gateway.GatewayV1().GatewayClasses().Delete(e.ctx, "none", metav1.DeleteOptions{})
	e.accept()
	e.export("bar", port("http", 80))
	e.export("db", port("postgres", 5432))
	e.export("foo", port("http", 80))
	e.apply("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: foo.service-mirror}\nspec: {hostnames: [foo.example.com]}\n")
	_, err = paris.CoreV1().Services(e.id).Create(e.ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "elsewhere", Labels: map[string]string{exported: e.id}},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}}, metav1.CreateOptions{})
	e.must(err)
	out := e.once(0, e.args("--check")...)
	e.says(out,
		[]string{"+ ", "Kubernetes v1"}, []string{"+ ", "all required permissions are granted"},
		[]string{"+ ", "Gateway " + e.id + "/public of GatewayClass none is accepted and programmed"}, []string{"+ ", "has the listeners http (HTTP, 80)"},
		[]string{"+ ", "serves HTTPRoute in v1", "TLSRoute in v1"}, []string{"+ ", "namespace " + ours + " has 0 records"},
		[]string{"! ", e.id + "/db will be published, but not all of its ports will be reachable", "TCP"},
		[]string{"! ", e.id + "/foo will not be published", "a foreign HTTPRoute has the name foo.service-mirror"},
		[]string{"! ", e.id + "/elsewhere will not be published", "ExternalName"},
		[]string{"+ ", "2 of 4 exported Services can be published"})
	if strings.Contains(out, "\n- ") {
		t.Errorf("something must be fixed:\n%s", out)
	}
	e.says(e.once(1, e.args("--to", "ingress", "--ingress-class", "traefik", "--record-namespace", "nowhere", "--check")...),
		[]string{"! ", "cannot check whether IngressClass traefik exists"}, []string{"- ", "namespace nowhere of the records does not exist"})
	e.says(e.once(1, append(e.args("--to", "ingress", "--ingress-class", "traefik", "--check"), "--kubeconfig", paris.Kubeconfig)...),
		[]string{"- ", "IngressClass traefik does not exist", "--ingress-class"}, []string{"+ ", "3 of 4 exported Services can be published"})
	e.kubectl("label", "gateway/public", "service-mirror.io/listeners=managed")
	e.says(e.once(0, e.args("--check")...), []string{"+ ", "Gateway " + e.id + "/public allows added listeners"})
	e.kubectl("delete", "rolebinding/service-mirror-publish-listeners")
	e.soon("the permission is gone", func() error {
		if out := e.once(0, e.args("--check")...); !strings.Contains(out, "no permission to patch gateways.gateway.networking.k8s.io") {
			return errors.New(out)
		}
		return nil
	})
	if writes := e.writes(mark); len(writes) > 0 {
		t.Errorf("a check has written: %v", writes)
	}
}

// The status page and its JSON are served.
func TestStatusPage(t *testing.T) {
	e := newEnv(t)
	e.gatewayOf(http)
	e.accept()
	e.export("bar", port("http", 80))
	p := e.start("--listen", "127.0.0.1:0")
	e.soon("bar's record", e.recorded("bar", 80))
	var address string
	e.soon("it serves", func() error {
		_, after, found := strings.Cut(p.Log.String(), `"Serving" address="`)
		if address, _, _ = strings.Cut(after, `"`); !found || address == "" {
			return fmt.Errorf("it does not")
		}
		return nil
	})
	get := func(path string) (string, error) {
		response, err := web.Get("http://" + address + path)
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if response.StatusCode != web.StatusOK {
			err = fmt.Errorf("%s: %s", response.Status, body)
		}
		return string(body), err
	}
	e.soon("the JSON has bar", func() error {
		text, err := get("/status.json")
		if err != nil {
			return err
		}
		for _, want := range []string{`"leader":true`, `{"kind":"gateway-api","name":"Gateway ` + e.id + `/public","state":"up","problem":""`, `"counts":{"conflict":0,"incomplete":0,"published":1,`,
			`"name":"bar","state":"published"`, `"gatewayPort":80,"shared":true`, `"routes":["HTTPRoute bar.service-mirror"]`} {
			if !strings.Contains(text, want) {
				return fmt.Errorf("%s is missing: %s", want, text)
			}
		}
		return nil
	})
	if text, err := get("/"); err != nil || !strings.Contains(text, "Everything is published") {
		t.Errorf("the page: %s, %v", text, err)
	}
}

// Without permissions a check says which are missing, and does not wait for what it cannot read.
func TestCheckWithoutPermissions(t *testing.T) {
	e := newEnv(t)
	_, err := paris.CoreV1().ServiceAccounts(e.id).Create(e.ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "nobody"}}, metav1.CreateOptions{})
	e.must(err)
	token, err := paris.RequestToken(e.ctx, harness.Account{Namespace: e.id, Name: "nobody"})
	e.must(err)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	e.must(harness.WriteKubeconfig(path, harness.Credentials{Server: paris.Config.Host, CA: paris.Config.CAData, Token: token}))
	args := append(e.args("--check", "--leader-elect", "--leader-elect-lease", ours+"/service-mirror-publish"), "--kubeconfig", path)
	out := e.once(1, args...)
	e.says(out, []string{"- ", "no permission to list, watch services"}, []string{"- ", "no permission to get, list, watch, create, update, delete httproutes.gateway.networking.k8s.io"},
		[]string{"- ", "leases.coordination.k8s.io service-mirror-publish in namespace " + ours}, []string{"! ", "no permission to create, patch events", "no Events will be created"})
}

// A prune deletes what was published, released records included, and nothing else.
func TestPrune(t *testing.T) {
	e := newEnv(t)
	e.gatewayOf(http)
	_, err := paris.Kubectl(e.ctx, "label", "-n", e.id, "gateway", "public", "service-mirror.io/listeners=managed")
	e.must(err)
	e.export("bar", port("http", 80), port("postgres", 5432))
	e.export("db", port("postgres", 5432))
	elected := e.args("--leader-elect", "--leader-elect-lease", ours+"/service-mirror-publish")
	p := e.start("--leader-elect", "--leader-elect-lease", ours+"/service-mirror-publish")
	e.soon("bar's record", func() error {
		r, err := e.record("bar")
		if err != nil || len(r.Ports) != 2 || r.Ports[0].Gateway != 80 || r.Ports[1].Gateway == 0 {
			return fmt.Errorf("%+v, %v", r, err)
		}
		return nil
	})
	e.soon("db's route", func() error {
		_, err := gateway.GatewayV1().TCPRoutes(e.id).Get(e.ctx, "db.5432.service-mirror", metav1.GetOptions{})
		return err
	})
	e.unexport("db")
	e.soon("db's route is gone", func() error {
		_, err := gateway.GatewayV1().TCPRoutes(e.id).Get(e.ctx, "db.5432.service-mirror", metav1.GetOptions{})
		return gone(err)
	})
	routes := gateway.GatewayV1().HTTPRoutes(e.id)
	twin, err := routes.Get(e.ctx, "bar.service-mirror", metav1.GetOptions{})
	e.must(err)
	twin.Name, twin.ResourceVersion, twin.UID = "copy", "", ""
	_, err = routes.Create(e.ctx, twin, metav1.CreateOptions{})
	e.must(err)
	notes, err := paris.CoreV1().ConfigMaps(ours).Create(e.ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: e.id + ".notes", Labels: map[string]string{"service-mirror.io/record": "v1"}}}, metav1.CreateOptions{})
	e.must(err)
	e.says(e.once(1, append(slices.Clone(elected), "--prune")...), []string{"has Lease " + ours + "/service-mirror-publish", "scale its Deployment to 0"})
	_, err = routes.Get(e.ctx, "bar.service-mirror", metav1.GetOptions{})
	e.must(err)
	e.must(p.Stop(10 * time.Second))

	mark, err := paris.Mark()
	e.must(err)
	all := [][]string{{"HTTPRoute " + e.id + "/bar.service-mirror in "}, {"TCPRoute " + e.id + "/bar.5432.service-mirror in "}, {"ConfigMap " + ours + "/" + e.id + ".bar in "},
		{"ConfigMap " + ours + "/" + e.id + ".db in "}, {"listeners service-mirror-tcp-15", "of Gateway " + e.id + "/public in "}, {"5 objects in "}}
	e.says(e.once(0, append(slices.Clone(elected), "--prune", "--dry-run")...), all...)
	if writes := e.writes(mark); len(writes) > 0 {
		t.Errorf("a dry run has written: %v", writes)
	}
	_, err = paris.Kubectl(e.ctx, "label", "-n", e.id, "gateway", "public", "service-mirror.io/listeners-")
	e.must(err)
	e.says(e.once(1, append(slices.Clone(elected), "--prune")...), append(all, []string{"4 removed"}, []string{"delete listeners service-mirror-tcp-15", "no longer has the label"})...)
	_, err = paris.Kubectl(e.ctx, "label", "-n", e.id, "gateway", "public", "service-mirror.io/listeners=managed")
	e.must(err)
	e.says(e.once(0, append(slices.Clone(elected), "--prune")...), []string{"1 removed"})
	e.must(gone(func() error { _, err := routes.Get(e.ctx, "bar.service-mirror", metav1.GetOptions{}); return err }()))
	e.must(gone(func() error { _, err := e.record("bar"); return err }()))
	gw, err := gateway.GatewayV1().Gateways(e.id).Get(e.ctx, "public", metav1.GetOptions{})
	if err != nil || len(gw.Spec.Listeners) != 1 || gw.Spec.Listeners[0].Name != "http" {
		t.Errorf("the listeners are %+v, %v", gw.Spec.Listeners, err)
	}
	if _, err := routes.Get(e.ctx, "copy", metav1.GetOptions{}); err != nil {
		t.Errorf("the copy: %v", err)
	}
	if _, err := paris.CoreV1().ConfigMaps(ours).Get(e.ctx, notes.Name, metav1.GetOptions{}); err != nil {
		t.Errorf("the foreign ConfigMap: %v", err)
	}
	e.says(e.once(0, append(slices.Clone(elected), "--prune")...), []string{"0 removed"})
}
