package write

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// Pruned is what was deleted of one remote, or would be, for programs.
type Pruned struct {
	Remote  string         `json:"remote"`
	Objects []PrunedObject `json:"objects"`
	Removed int            `json:"removed"`
	// Unlisted are the Services of merged mirrors that stay, and do not list the remote any more.
	Unlisted []PrunedObject `json:"unlisted,omitempty"`
}

// PrunedObject names an object.
type PrunedObject struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// Pruning is the mirrors of which remotes are pruned.
type Pruning struct {
	Client  remote.Client
	Local   string   // the name of the cluster that the client is for
	Remotes []string // DNS labels
	Dry     bool     // list them only
}

// Prune deletes all mirrors of the remotes, and nothing else, after it has listed them all in out. Nothing is deleted
// if one of them is not known: has no object of ours. The error lists the objects that stay, since they have changed
// meanwhile or may not be deleted.
func (p Pruning) Prune(ctx context.Context, out io.Writer) (all []Pruned, err error) {
	return p.prune(ctx, out, true)
}

// prune is the same; known tells that each remote must be known.
func (p Pruning) prune(ctx context.Context, out io.Writer, known bool) (all []Pruned, err error) {
	of := map[string]found{}
	var unknown []string
	for _, name := range p.Remotes {
		if of[name], err = p.ownedBy(ctx, name); err != nil {
			return nil, err
		}
		if len(of[name].objects) == 0 && !of[name].listed {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 && known {
		known, err := p.known(ctx)
		if err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%s: no mirrors of this remote in %s: %s", strings.Join(unknown, ", "), p.Local, known)
	}
	var failed []string
	for _, name := range p.Remotes {
		pruned := Pruned{Remote: name}
		for _, one := range of[name].objects {
			pruned.Objects = append(pruned.Objects, PrunedObject{one.kind.String(), one.GetNamespace(), one.GetName()})
		}
		for _, svc := range of[name].stay {
			pruned.Unlisted = append(pruned.Unlisted, PrunedObject{plan.Service.String(), svc.Namespace, svc.Name})
		}
		if err := p.unlisting(ctx, name, of[name].stay, out); err != nil {
			failed = append(failed, err.Error())
		}
		list := deletions(p.Client, of[name].objects)
		removed, err := deleteAll(ctx, list, "in "+p.Local+" of remote "+name, p.Dry, out)
		if err != nil {
			failed = append(failed, err.Error())
		}
		pruned.Removed = removed
		all = append(all, pruned)
	}
	if len(failed) > 0 {
		return all, fmt.Errorf("%s", strings.Join(failed, "\n"))
	}
	return all, nil
}

// known says which remotes have mirrors.
func (p Pruning) known(ctx context.Context) (string, error) {
	ours := metav1.ListOptions{LabelSelector: labels.Set{plan.ManagedByLabel: plan.ManagedBy}.String()}
	services, err := p.Client.CoreV1().Services(metav1.NamespaceAll).List(ctx, ours)
	if err != nil {
		return "", fmt.Errorf("list Services: %w", err)
	}
	mirrors := map[string]int{}
	for i := range services.Items {
		if listed := plan.Remotes(&services.Items[i]); len(listed) > 0 {
			for _, one := range listed {
				mirrors[one.Remote]++
			}
		} else if owner, owned := plan.Owner(&services.Items[i]); owned {
			mirrors[owner]++
		}
	}
	if len(mirrors) == 0 {
		return "there are no mirrors at all", nil
	}
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(mirrors)) {
		texts = append(texts, fmt.Sprintf("%s (%d)", name, mirrors[name]))
	}
	return "there are mirrors of remotes " + strings.Join(texts, ", "), nil
}
