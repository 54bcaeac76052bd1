package link

import (
	"context"
	"errors"
	"fmt"
	"io"

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
	local, err := l.readLocal(ctx, request.Name)
	if errors.Is(err, errNoDaemon) {
		local.Daemon, err = newDaemon(l.Namespace, l.Deployment), nil
		l.remark(l.Local, fmt.Sprintf("there is no Deployment %s/%s yet: the other --remote are not known", l.Namespace, l.Deployment))
	}
	if err != nil {
		return err
	}
	keys, err := request.keys(local.Daemon)
	if err != nil {
		return err
	}
	remote, err := l.readRemote(ctx, keys, local.Daemon, request)
	if err != nil {
		return err
	}
	writable := local
	writable.Daemon.Command, writable.Daemon.Args = nil, writable.Daemon.words() // to decide: manifests can change either
	plan, err := Decide(request, keys, writable, remote)
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
	if err := printHeader(out, request.Name, "For the local cluster. The Secret has a credential: encrypt it before you commit it. The\n"+
		"# Deployment, the ServiceAccount and the Secret are parts: patches for kustomize, or for kubectl apply --server-side."); err != nil {
		return err
	}
	return printManifests(out, plan.manifests(local.Daemon, credentials))
}

// manifests are those of the local cluster.
func (p Plan) manifests(d Daemon, credentials []byte) []runtime.Object {
	meta := func(name string) map[string]any { return map[string]any{"namespace": d.Namespace, "name": name} }
	account := map[string]any{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(d.Account)}
	account["metadata"].(map[string]any)["annotations"] = map[string]any{annotation(p.Name): p.Rule}
	args := d.with(p.Name, p.Flag)
	container := map[string]any{"name": d.Container, "args": list(args)}
	if d.inCommand(p.Name) {
		container = map[string]any{"name": d.Container, "command": list(replaced(d.Command, p.Name, p.Flag))}
	}
	deployment := map[string]any{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(d.Name), "spec": map[string]any{
		"template": map[string]any{"spec": map[string]any{"containers": []any{container}}},
	}}
	objects := []runtime.Object{p.secret(d, credentials), &unstructured.Unstructured{Object: account}}
	if p.Egress != nil {
		objects = append(objects, p.Egress)
	}
	return append(objects, &unstructured.Unstructured{Object: deployment})
}

// list is words as an unstructured object has them.
func list(words []string) []any {
	all := make([]any, len(words))
	for i, word := range words {
		all[i] = word
	}
	return all
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
