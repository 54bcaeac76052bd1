package deploy

import (
	"os/exec"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// exec runs the program in the Pod once more, as kubectl exec does.
func (p *pod) exec(args ...string) (string, error) {
	p.env.Helper()
	out, err := p.command(args...).CombinedOutput()
	return string(out), err
}

// command is the program in the Pod once more.
func (p *pod) command(args ...string) *exec.Cmd {
	cmd := p.env.ownImage().command(p.root, args...)
	cmd.Env, cmd.SysProcAttr = p.cmd.Env, p.cmd.SysProcAttr
	return cmd
}

// What a user does before and after, in the daemon's Pod and so with its permissions.
func TestOperate(t *testing.T) {
	e := newEnv(t)
	e.namespace("shop", london, paris)
	e.gateway("203.0.113.1")
	e.apply(london, shipped("local"))
	p := e.runPod() // it waits for its first remote
	e.link("gateway=ingress/gateway")
	e.export("shop", "bar", 80)
	e.mirrored("shop", "bar-paris", 80, byKubernetes, "203.0.113.1:8080")

	since, there := e.mark(london), e.mark(paris)
	const remotes = "--remotes-from=" + ours
	// Marked with + is what is right.
	if out, err := p.exec("check", "--strict", remotes); err != nil || !strings.HasPrefix(out, "+ ") || strings.Contains(out, "\n- ") || strings.Contains(out, "\n! ") {
		t.Errorf("check: %v\n%s", err, out)
	}
	if out, err := p.exec("plan", remotes); err != nil || out != "0 create, 0 update, 0 delete\n" {
		t.Errorf("plan: %v\n%s", err, out)
	}
	if out, err := p.exec("prune", "paris", remotes); err == nil || !strings.Contains(out, "paris") {
		t.Errorf("prune of a remote that is linked: %v\n%s", err, out)
	}
	_, err := e.tryUnlink("paris")
	e.must(err)
	if out, err := p.exec("prune", "paris", "--dry-run"); err != nil || !strings.Contains(out, "shop/bar-paris") {
		t.Errorf("prune --dry-run: %v\n%s", err, out)
	}
	if _, err := london.CoreV1().Services("shop").Get(e.ctx, "bar-paris", metav1.GetOptions{}); err != nil {
		t.Errorf("after prune --dry-run: %v", err)
	}
	if out, err := p.exec("prune", "paris"); err != nil {
		t.Errorf("prune: %v\n%s", err, out)
	}
	e.gone("shop", "bar-paris")
	for _, r := range append(e.requests(london, ours, since), e.requests(paris, reader, there)...) {
		if r.ResponseStatus.Code == 403 {
			t.Errorf("refused: %v", r)
		}
	}
}

// A cluster can have both sides: its own mirrors, and Services that another one mirrors.
func TestBothSides(t *testing.T) {
	e := newEnv(t)
	e.apply(london, shipped("remote"))
	e.apply(london, shipped("local"))
	e.kubectl(london, "apply", "-k", shipped("remote"))
	namespace, err := london.CoreV1().Namespaces().Get(e.ctx, ours, metav1.GetOptions{})
	e.must(err)
	if namespace.Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
		t.Errorf("the namespace has the labels %v", namespace.Labels)
	}
	for _, g := range e.grants(london, reader) {
		if g.Verb != "list" && g.Verb != "watch" && g.Verb != "get" {
			t.Errorf("%s may %v", reader, g)
		}
	}
	if len(e.grants(london, ours)) == 0 || len(e.grants(london, reader)) == 0 {
		t.Error("one of the two may do nothing")
	}
}
