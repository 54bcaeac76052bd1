package mirror

import (
	"errors"

	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"service-mirror.io/service-mirror/remote"
)

// Clients are those of the local cluster. A replica that does not lead may read with the first two, and is
// refused by the third.
type Clients struct {
	Read     remote.Client
	Metadata metadata.Interface
	Write    remote.Client
	Pin      *remote.Pin // keeps all of them on one cluster
}

// NewClients makes the clients of the local cluster. guard makes the configuration of
// the one that writes refuse requests while this replica does not lead.
func NewClients(local *rest.Config, guard func(*rest.Config)) (Clients, error) {
	clients := Clients{Pin: &remote.Pin{}}
	configs, err := clients.Pin.Configs(local, 3, guard)
	if err != nil {
		return clients, err
	}
	var errs [3]error
	clients.Read, errs[0] = remote.NewClient(configs[0])
	clients.Metadata, errs[1] = metadata.NewForConfig(configs[1])
	clients.Write, errs[2] = remote.NewClient(configs[2])
	return clients, errors.Join(errs[:]...)
}
