package link

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func deployment(change func(*corev1.PodSpec)) *appsv1.Deployment {
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "service-mirror", Name: "service-mirror", ResourceVersion: "7"}}
	d.Spec.Template.Labels = map[string]string{"app.kubernetes.io/name": "service-mirror"}
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: d.Spec.Template.Labels}
	pod := &d.Spec.Template.Spec
	pod.ServiceAccountName = "service-mirror"
	pod.Containers = []corev1.Container{{Name: "sidecar"}, {
		Name: "service-mirror", Command: []string{"service-mirror", "--leader-elect", "--remotes-from=service-mirror"},
		VolumeMounts: []corev1.VolumeMount{{Name: "remotes", MountPath: "/etc/service-mirror/remotes"}},
	}}
	pod.Volumes = []corev1.Volume{{Name: "remotes", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "service-mirror-remotes"}}}}
	change(pod)
	return d
}

func TestReadDaemon(t *testing.T) {
	d, err := readDaemon(deployment(func(*corev1.PodSpec) {}))
	if err != nil || d.Container != "service-mirror" || d.Account != "service-mirror" || d.Earlier != "service-mirror-remotes" || d.Replicas != 1 ||
		d.remotesFrom() != "service-mirror" {
		t.Errorf("as shipped: %+v, %v", d, err)
	}
	d, err = readDaemon(deployment(func(pod *corev1.PodSpec) {
		pod.ServiceAccountName = ""
		pod.Containers = []corev1.Container{{Name: "mirror", Args: []string{"--remotes-from", "remotes"}}}
		pod.Volumes[0].Secret.SecretName = "sm-remotes"
	}))
	if err != nil || d.Container != "mirror" || d.Account != "default" || d.Earlier != "sm-remotes" || d.remotesFrom() != "remotes" {
		t.Errorf("with other names: %+v, %v", d, err)
	}
	_, err = readDaemon(deployment(func(pod *corev1.PodSpec) { pod.Containers[1].Name = "other" }))
	if err == nil || !strings.Contains(err.Error(), "has no container service-mirror") {
		t.Errorf("of two others: %v", err)
	}
}

func TestArgumentsOfTheDaemon(t *testing.T) {
	for args, want := range map[string]string{
		"":                               "",
		"-v=1":                           "-v=1",
		"--remote=paris=/old,uid=x -v=1": "-v=1",
		"--remote paris=/old -v=1":       "-v=1",
		"--remote paris-2=/old":          "--remote paris-2=/old",
		"--remote=paris=/a --remote berlin=/b --remote paris=/c": "--remote berlin=/b",
		"--remote": "--remote",
	} {
		d := Daemon{Args: strings.Fields(args)}
		if got := strings.Join(d.without("paris"), " "); got != want {
			t.Errorf("%s: without it %s, want %s", args, got, want)
		}
		if (d.patch(d.without("paris")) != nil) != (args != want) {
			t.Errorf("%s: it is written only if it changes", args)
		}
	}
	d := Daemon{Container: "c", Args: []string{"--remote=paris=/x"}}
	for want, args := range map[string][]string{
		`{"spec":{"template":{"spec":{"containers":[{"args":null,"name":"c"}]}}}}`:     nil,
		`{"spec":{"template":{"spec":{"containers":[{"args":["-v=1"],"name":"c"}]}}}}`: {"-v=1"},
	} {
		if got, _ := json.Marshal(d.patch(args)); string(got) != want {
			t.Errorf("the patch is %s, want %s", got, want)
		}
	}
}

// The policy must know the names that the daemon will make.
func TestRule(t *testing.T) {
	for _, test := range []struct{ command, keys, want string }{
		{"service-mirror --leader-elect", "gateway=a/b", ""},
		{"service-mirror", "name={cluster}-{service},namespace=web:shop,gateway=a/b,namespace=a:b", "name={cluster}-{service},namespace=web:shop,namespace=a:b"},
		{"service-mirror --name-template {service}-of-{cluster} --allow-names", "gateway=a/b", "name={service}-of-{cluster},allow-names"},
		{"service-mirror --name-template={service}-of-{cluster} --allow-names=true", "name={service},gateway=a/b", "name={service},allow-names"},
		{"service-mirror --allow-names=false", "namespace=a:b", "namespace=a:b"},
		{"service-mirror --allow-names=1", "", "allow-names"},
		{"service-mirror --allow-names --allow-names=F", "namespace=a:b", "namespace=a:b"},
	} {
		d := Daemon{Command: strings.Fields(test.command)}
		if got := d.rule(ParseKeys(test.keys)); got != test.want {
			t.Errorf("%s with %s: got %s, want %s", test.command, test.keys, got, test.want)
		}
	}
}

// While mirrors move, the policy permits the names of before, too; the next link ends that.
func TestPermitted(t *testing.T) {
	text := func(s string) *string { return &s }
	for _, test := range []struct {
		rule  string
		noted *string
		want  string
	}{
		{"name=a", nil, "name=a"},
		{"", text(""), ""},
		{"name=a", text("name=a"), "name=a"},
		{"name=a", text(""), "name=a;"},
		{"", text("name=a,allow-names"), ";name=a,allow-names"},
		{"name=a", text("name=a;name=b"), "name=a"},
		{"name=c", text("name=a;name=b"), "name=c;name=a"},
	} {
		if got, moves := permitted(test.rule, test.noted); got != test.want || moves != strings.Contains(got, ";") {
			t.Errorf("%s after %v: got %s, %v, want %s", test.rule, test.noted, got, moves, test.want)
		}
	}
}

func TestVerification(t *testing.T) {
	d := Daemon{Name: "service-mirror", Namespace: "service-mirror", Container: "service-mirror", Command: []string{"service-mirror", "--leader-elect"}, Args: []string{"--remotes-from=a b"}}
	l := Linker{Local: &Cluster{Flags: "--context london"}}
	want := "kubectl --context london --namespace service-mirror exec deployment/service-mirror --container service-mirror -- " +
		"service-mirror verify --remote paris --leader-elect '--remotes-from=a b'"
	if got := l.byHand(d, d.verification("paris", false, 0)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	d.Command = nil
	if got := strings.Join(d.verification("paris", true, 30*time.Second), " "); got != "service-mirror verify --remote paris --output=json --wait=30s --remotes-from=a b" {
		t.Errorf("with the image's entry point it is %s", got)
	}
}

// What the exit code of verify means for the link.
func TestConclusion(t *testing.T) {
	for _, test := range []struct {
		code, exported int
		state          State
		reason         string // its beginning
		exports        bool
	}{
		{allReached, 2, Reached, "", true},
		{someNotReached, 2, NotReached, "", true},
		{someNotReached, -1, NotReached, "", false},
		{wrongFlags, 2, Unknown, "verify in the daemon's pod rejects its flags, see above: update the daemon's image", true},
		{noMirror, 0, Unknown, "paris exports nothing yet, so there was nothing to verify", false},
		{noMirror, -1, Unknown, "paris exports nothing yet", false},
		{noMirror, 2, Unknown, "none of the 2 exported Services of paris is for this cluster: check their annotation service-mirror.io/export-to", true},
		{onlyUDP, 2, Unknown, "only UDP ports in the mirrors of paris, which cannot be verified: test them with a client in a pod", true},
		{onlyUDP, -1, Unknown, "only UDP ports", true},
		{137, 2, Unknown, "verify exited with code 137", true},
	} {
		v := Verified{State: Unknown}
		err := v.conclude("paris", test.code, test.exported)
		if v.State != test.state || !strings.HasPrefix(v.Reason, test.reason) || (v.Reason == "") != (test.reason == "") || v.Exports != test.exports {
			t.Errorf("code %d of %d: got %+v", test.code, test.exported, v)
		}
		if (err == ErrNotReached) != (test.state == NotReached) || err != nil && err != ErrNotReached {
			t.Errorf("code %d: error %v", test.code, err)
		}
	}
}
