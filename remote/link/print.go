package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
)

// PrintRemote prints what the remote cluster must have. No cluster is read: the keys are those of the request, and a
// gateway that the daemon's flags name for all remotes must be one of them.
func PrintRemote(out io.Writer, request Request) error {
	spec, err := request.Set.spec(request.Name)
	if err != nil {
		return err
	}
	if err := printHeader(out, request.Name, "For the remote cluster, "+request.Name+": an account that can read "+readsOf(spec)+"."); err != nil {
		return err
	}
	return printManifests(out, grantsFor(request.Reader, spec, spec.Gateways))
}

// PrintLocal prints what the local cluster must have. Both clusters are read, and the credentials tried; nothing is
// written.
func (l *Linker) PrintLocal(ctx context.Context, out io.Writer, request Request) error {
	l.result = newResult(request.Name, l.Local.Name)
	local, err := l.printable(ctx, request.Name)
	if err != nil {
		return err
	}
	keys, err := request.keys(local)
	if err != nil {
		return err
	}
	remote, err := l.readRemote(ctx, keys, local.Daemon, request)
	if err != nil {
		return err
	}
	if before := local.Daemon.remote(request.Name); before != "" {
		l.remark(l.Local, fmt.Sprintf("Deployment %s/%s has --remote=%s, which takes precedence over the Secret: remove it when the Secret is applied", l.Namespace, l.Deployment, before))
		request.Migrate = true
	}
	plan, err := Decide(request, keys, local, remote)
	if err != nil {
		return err
	}
	for _, text := range remote.Notes {
		l.remark(l.Remote, text)
	}
	account, err := l.Remote.get(ctx, secrets, request.Reader, reader)
	if err == nil && account == nil {
		err = fmt.Errorf("%s: there is no Secret %s/%s with a token: apply there what --print=remote prints", l.Remote.Name, request.Reader, reader)
	}
	if err != nil {
		return err
	}
	credentials, err := l.credentials(ctx, request, remote, plan)
	if err != nil {
		return err
	}
	about := "For the local cluster. The Secret contains credentials: encrypt it before you commit it. The\n" +
		"# ServiceAccount is a patch for kustomize, or for kubectl apply --server-side. The Secret's keys are\n" +
		"# " + strings.Join(append([]string{kubeconfigKey}, plan.Keys.list()...), " ")
	if err := printHeader(out, request.Name, about); err != nil {
		return err
	}
	return printManifests(out, plan.manifests(local.Daemon, credentials))
}

// printable reads the local cluster, whose Deployment may still be without what a link needs, or not exist yet.
func (l *Linker) printable(ctx context.Context, name string) (Local, error) {
	local, err := l.readLocal(ctx, name)
	switch {
	case errors.Is(err, errNoDaemon):
		l.remark(l.Local, fmt.Sprintf("Deployment %s/%s does not exist yet: it must have --remotes-from=%s", l.Namespace, l.Deployment, l.Namespace))
		local.Daemon, err = newDaemon(l.Namespace, l.Deployment), nil
	case err == nil && local.Daemon.remotesFrom() == "":
		l.remark(l.Local, fmt.Sprintf("Deployment %s/%s does not have --remotes-from=%s yet, which deploy/local of this version has: until then, the Secret is not read", l.Namespace, l.Deployment, l.Namespace))
		local.Daemon.Command = append(slices.Clone(local.Daemon.Command), "--remotes-from="+l.Namespace)
	}
	return local, err
}

// manifests are those of the local cluster.
func (p Plan) manifests(d Daemon, credentials []byte) []runtime.Object {
	account := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{
		"namespace": d.Namespace, "name": d.Account, "annotations": map[string]any{annotation(p.Name): p.Rule},
	}}}
	objects := []runtime.Object{p.secret(credentials), account}
	if p.Egress != nil {
		objects = append(objects, p.Egress)
	}
	return objects
}

func printHeader(out io.Writer, name, about string) error {
	_, err := fmt.Fprintf(out, "# Made by service-mirror link %s --print. %s\n", name, about)
	return err
}

// printManifests prints objects as YAML.
func printManifests(out io.Writer, objects []runtime.Object) error {
	serializer := json.NewSerializerWithOptions(json.DefaultMetaFactory, nil, nil, json.SerializerOptions{Yaml: true})
	for i, object := range objects {
		if i > 0 {
			if _, err := io.WriteString(out, "---\n"); err != nil {
				return err
			}
		}
		sent, err := content(object)
		if err != nil {
			return err
		}
		if err := serializer.Encode(sent, out); err != nil {
			return err
		}
	}
	return nil
}
