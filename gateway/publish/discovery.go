package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

const (
	// discoveryPeriod is how often the API server is asked for a kind that it does not serve: a
	// CustomResourceDefinition may be installed at any time.
	discoveryPeriod = 15 * time.Second
	// servedPeriod is how often it is asked whether it still serves one that it does. That one has gone the end of its
	// watch says, too.
	servedPeriod = 2 * discoveryPeriod
	// documentLife is for how long a discovery document answers for all kinds of its group.
	documentLife = 5 * time.Second
)

// builtIn tells the groups whose kinds every API server has, and does not lose.
func builtIn(group string) bool { return group == "" || group == "networking.k8s.io" }

// discovery reads the API server's discovery documents, each once for all that need it at about the same time.
type discovery struct {
	client rest.Interface

	mu        sync.Mutex
	documents map[schema.GroupVersion]*document
}

// document is one of them.
type document struct {
	read      chan struct{} // closed when it is
	at        time.Time
	resources map[string]bool
	err       error
}

// serves tells whether the API server serves a resource.
func (d *discovery) serves(ctx context.Context, resource schema.GroupVersionResource) (bool, error) {
	for {
		doc, mine := d.document(resource.GroupVersion())
		if mine {
			doc.resources, doc.err = d.fetch(ctx, resource.GroupVersion())
			close(doc.read)
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-doc.read:
		}
		if mine || ctx.Err() != nil || !errors.Is(doc.err, context.Canceled) && !errors.Is(doc.err, context.DeadlineExceeded) {
			return doc.resources[resource.Resource], doc.err
		}
		// It was for another one, who has been told to end.
	}
}

// document is the one that is valid or being read; mine: the caller is to read it.
func (d *discovery) document(of schema.GroupVersion) (doc *document, mine bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	doc = d.documents[of]
	if doc != nil {
		select {
		case <-doc.read:
			if doc.err == nil && time.Since(doc.at) < documentLife {
				return doc, false
			}
		default:
			return doc, false
		}
	}
	doc = &document{read: make(chan struct{}), at: time.Now()}
	if d.documents == nil {
		d.documents = map[schema.GroupVersion]*document{}
	}
	d.documents[of] = doc
	return doc, true
}

// fetch reads the resources of a version; none where it is not served.
func (d *discovery) fetch(ctx context.Context, of schema.GroupVersion) (map[string]bool, error) {
	path := "/apis/" + of.String()
	if of.Group == "" {
		path = "/api/" + of.Version
	}
	body, err := d.client.Get().AbsPath(path).SetHeader("Accept", "application/json").Do(ctx).Raw()
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("discover %v: %w", of, err)
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(body, &list); err != nil || list.Kind != "APIResourceList" || list.GroupVersion != of.String() {
		return nil, fmt.Errorf("discover %v: malformed answer", of)
	}
	resources := map[string]bool{}
	for _, served := range list.APIResources {
		resources[served.Name] = true
	}
	return resources, nil
}
