package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"service-mirror.io/service-mirror/remote"
)

// Clients are those of the cluster. A replica that does not lead may read, and is refused by those that write.
type Clients struct {
	Read         remote.Client
	ReadDynamic  dynamic.Interface
	Metadata     metadata.Interface
	Write        remote.Client
	WriteDynamic dynamic.Interface
	// Serves tells whether the API server serves a resource.
	Serves func(ctx context.Context, resource schema.GroupVersionResource) (bool, error)
	Pin    *remote.Pin // keeps all of them on one cluster
}

// NewClients makes the clients. guard makes the configuration of those that write refuse requests while this replica
// does not lead.
func NewClients(cluster *rest.Config, guard func(*rest.Config)) (Clients, error) {
	clients := Clients{Pin: &remote.Pin{}}
	configs, err := clients.Pin.Configs(cluster, 2, guard)
	if err != nil {
		return clients, err
	}
	var errs [5]error
	clients.Read, errs[0] = remote.NewClient(configs[0])
	clients.ReadDynamic, errs[1] = dynamic.NewForConfig(configs[0])
	clients.Metadata, errs[2] = metadata.NewForConfig(configs[0])
	clients.Write, errs[3] = remote.NewClient(configs[1])
	clients.WriteDynamic, errs[4] = dynamic.NewForConfig(configs[1])
	clients.Serves = clients.serves
	return clients, errors.Join(errs[:]...)
}

// serves reads the API server's discovery document.
func (c Clients) serves(ctx context.Context, resource schema.GroupVersionResource) (bool, error) {
	path := "/apis/" + resource.GroupVersion().String()
	if resource.Group == "" {
		path = "/api/" + resource.Version
	}
	body, err := c.Read.CoreV1().RESTClient().Get().AbsPath(path).SetHeader("Accept", "application/json").Do(ctx).Raw()
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("discover %v: %w", resource.GroupVersion(), err)
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(body, &list); err != nil || list.Kind != "APIResourceList" || list.GroupVersion != resource.GroupVersion().String() {
		return false, fmt.Errorf("discover %v: malformed answer", resource.GroupVersion())
	}
	for _, served := range list.APIResources {
		if served.Name == resource.Resource {
			return true, nil
		}
	}
	return false, nil
}
