package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// What is no version is shown, and no credentials are blamed for it.
func TestAnswerThatIsNoVersion(t *testing.T) {
	for name, test := range map[string]struct {
		status            int
		contentType, body string
		want, unwanted    []string
	}{
		"a login page": {200, "text/html", "<html>\n<title>Log in\x1b[2J</title>", []string{`"<html>\n<title>Log in\x1b[2J</title>" of type "text/html"`, "a proxy or a login page", "server in the kubeconfig"}, []string{"credentials"}},
		"empty JSON":   {200, "application/json", "{}", []string{`"{}"`, "instead of a Kubernetes version"}, []string{"credentials"}},
		"other JSON":   {200, "application/json", `{"kind":"Status"}`, []string{"instead of a Kubernetes version"}, []string{"credentials"}},
		"unauthorized": {401, "application/json", "{}", []string{"401", "check the credentials"}, nil},
		"forbidden":    {403, "application/json", "{}", []string{"403", "check the credentials"}, nil},
		"not found":    {404, "text/html", "<html>", []string{"404", "server in the kubeconfig"}, []string{"credentials"}},
		"endless":      {200, "application/json", `{"gitVersion":"` + strings.Repeat("v", 2*maxVersion), []string{"instead of a Kubernetes version"}, []string{"credentials"}},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", test.contentType)
				w.WriteHeader(test.status)
				io.WriteString(w, test.body)
			}))
			defer server.Close()
			var out bytes.Buffer
			r := &Report{cluster: "paris", out: &out}
			if r.Reach(t.Context(), &rest.Config{Host: server.URL}) || !r.failed {
				t.Error("it counts as reached")
			}
			text := out.String()
			if !strings.HasPrefix(text, "- paris: ") || strings.Count(text, "\n") != 1 || len(text) > 1000 {
				t.Errorf("got %q", text)
			}
			for _, word := range test.want {
				if !strings.Contains(text, word) {
					t.Errorf("got %q, want %q in it", text, word)
				}
			}
			for _, word := range test.unwanted {
				if strings.Contains(text, word) {
					t.Errorf("got %q, with %q in it", text, word)
				}
			}
		})
	}
}

// What cannot be read is a line, and must be fixed, unless the missing permission was reported.
func TestWhatCannotBeRead(t *testing.T) {
	forbidden := apierrors.NewForbidden(corev1.Resource("services"), "", errors.New("no rule"))
	for name, test := range map[string]struct {
		err     error
		missing bool
		lines   int
	}{
		"too slow":              {fmt.Errorf("Get: %w", context.DeadlineExceeded), false, 3},
		"too slow and missing":  {context.DeadlineExceeded, true, 3},
		"forbidden":             {forbidden, true, 0},
		"forbidden all at once": {forbidden, false, 3},
		"malformed":             {errors.New("malformed answer: it is \"text/html\", not a ServiceList"), false, 3},
	} {
		t.Run(name, func(t *testing.T) {
			client := fake.NewClientset()
			client.PrependReactor("*", "*", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, test.err })
			var out bytes.Buffer
			r := &Report{cluster: "paris", out: &out, client: client, missing: test.missing}
			r.identity(t.Context(), nil, remote.Spec{})
			r.exports(t.Context(), nil, Options{}, remote.Spec{Namespaces: []string{"shop"}}, remote.Gateways{})
			r.reserved(t.Context(), gateway.Config{TCPServices: cache.NewObjectName("ingress", "tcp")})
			if n := strings.Count(out.String(), "- paris: "); n != test.lines || r.failed != (n > 0) || n != strings.Count(out.String(), "cannot be read: ") {
				t.Errorf("failed: %v, want %d lines:\n%s", r.failed, test.lines, &out)
			}
		})
	}
}

// The cluster that the mirrors are not of must be fixed; without mirrors, and where the configuration names it, it is in
// order. What the daemon does not accept is no warning, whether the UID can be read or not.
func TestIdentityOfAnotherCluster(t *testing.T) {
	mirror := func(uid string) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bar-paris",
			Labels:      map[string]string{plan.ManagedByLabel: plan.ManagedBy, plan.ClusterLabel: "paris"},
			Annotations: map[string]string{plan.MirrorAnnotation: "default/bar-paris", plan.ClusterUIDAnnotation: uid, plan.RemoteServiceAnnotation: "default/bar"}}}
	}
	const warned = "! paris: no permission to get namespaces kube-system: a replaced cluster cannot be detected\n"
	const fix = "allow the account to get namespace kube-system, or set uid=unverified in --remote paris\n"
	for name, test := range map[string]struct {
		mirrors   []*corev1.Service
		uid       types.UID // in the flags
		forbidden bool
		want      string
	}{
		"no mirrors":           {nil, "", false, "+ paris: cluster UID is paris-uid\n"},
		"its mirrors":          {[]*corev1.Service{mirror("paris-uid")}, "", false, "+ paris: cluster UID is paris-uid\n"},
		"another's mirrors":    {[]*corev1.Service{mirror("berlin-uid")}, "", false, "- paris: its kubeconfig points to the cluster with UID paris-uid, but its mirrors are from the cluster with UID berlin-uid, so they are not updated: if the cluster was replaced on purpose, add uid=paris-uid to --remote paris\n"},
		"mirrors that say not": {[]*corev1.Service{mirror("")}, "", false, "+ paris: cluster UID is paris-uid\n"},
		"it is meant":          {[]*corev1.Service{mirror("berlin-uid")}, "paris-uid", false, "+ paris: cluster UID is paris-uid\n"},
		"another is meant":     {nil, "berlin-uid", false, "- paris: its kubeconfig points to the cluster with UID paris-uid, but uid=berlin-uid is configured, so its mirrors are not updated: correct the kubeconfig, or uid= in --remote paris\n"},

		"forbidden, no mirrors":           {nil, "", true, warned},
		"forbidden, mirrors that say not": {[]*corev1.Service{mirror("")}, "", true, warned},
		"forbidden, and was not before": {[]*corev1.Service{mirror("paris-uid")}, "", true,
			warned + "- paris: the UID of the cluster cannot be read, but its mirrors are from the cluster with UID paris-uid, so they are not updated: " + fix},
		"forbidden, and it is meant": {nil, "paris-uid", true,
			warned + "- paris: the UID of the cluster cannot be read, but uid=paris-uid is configured, so its mirrors are not updated: " + fix},
		"forbidden, and need not be": {[]*corev1.Service{mirror("paris-uid")}, remote.Unverified, true,
			"+ paris: all required permissions are granted\n+ paris: the cluster UID cannot be read, which uid=unverified accepts\n"},
	} {
		t.Run(name, func(t *testing.T) {
			local := &target{services: map[cache.ObjectName]*corev1.Service{}}
			for _, svc := range test.mirrors {
				local.services[cache.MetaObjectToName(svc)] = svc
			}
			spec := remote.Spec{Name: "paris", UID: test.uid, Gateways: []gateway.Config{{}}}
			client := fake.NewClientset(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: "paris-uid"}})
			var out bytes.Buffer
			r := &Report{cluster: "paris", out: &out, client: client}
			if test.forbidden {
				client.PrependReactor("get", "namespaces", func(clienttesting.Action) (bool, runtime.Object, error) {
					return true, nil, apierrors.NewForbidden(corev1.Resource("namespaces"), "kube-system", errors.New("no rule"))
				})
				client.PrependReactor("create", "selfsubjectaccessreviews", func(action clienttesting.Action) (bool, runtime.Object, error) {
					review := action.(clienttesting.CreateAction).GetObject().(*authorizationv1.SelfSubjectAccessReview)
					review.Status.Allowed = review.Spec.ResourceAttributes.Resource != "namespaces"
					return true, review, nil
				})
				r.Permissions(t.Context(), remoteNeeds(spec))
			}
			r.identity(t.Context(), local, spec)
			if out.String() != test.want || r.failed != strings.Contains("\n"+test.want, "\n- ") {
				t.Errorf("failed %v, got\n%swant\n%s", r.failed, &out, test.want)
			}
		})
	}
}

// A text of a remote makes no line of its own, nor does it move the terminal's cursor.
func TestTextsAreEscaped(t *testing.T) {
	var out bytes.Buffer
	r := &Report{cluster: "paris", out: &out}
	r.Warn("it says %s", "a\x1b[2Jb\r\n+ paris: all is well\u202e")
	if got, want := out.String(), "! paris: it says a\ufffd[2Jb\ufffd; + paris: all is well\ufffd\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
