package mirror

import (
	"errors"

	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"service-mirror.io/service-mirror/remote"
)

// NewClients makes the clients of the local cluster. guard makes the configuration of
// the one that writes refuse requests while this replica does not lead.
func NewClients(local *rest.Config, guard func(*rest.Config)) (Clients, error) {
	writing := rest.CopyConfig(local)
	guard(writing)
	var clients Clients
	var errs [3]error
	clients.Read, errs[0] = remote.NewClient(local)
	clients.Metadata, errs[1] = metadata.NewForConfig(local)
	clients.Write, errs[2] = remote.NewClient(writing)
	return clients, errors.Join(errs[:]...)
}
