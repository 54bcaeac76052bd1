package publish

import (
	"context"
	"errors"

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
	if err := errors.Join(errs[:]...); err != nil {
		return clients, err
	}
	clients.Serves = (&discovery{client: clients.Read.CoreV1().RESTClient()}).serves
	return clients, nil
}
