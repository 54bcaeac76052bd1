package main

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/embed"
)

// etcdEndpoint is a unix socket in the working directory. A port could be taken by others; an
// absolute path could be longer than a socket's name may be; and kube-apiserver's own check of
// the connection understands a relative one only.
const etcdEndpoint = "unix://etcd.sock"

// runEtcd runs etcd until ctx ends and calls ready when it serves. Its data are in the working
// directory.
func runEtcd(ctx context.Context, ready func()) error {
	config := embed.NewConfig()
	config.Dir = "etcd"
	// Losing the machine loses the cluster, which nobody minds; losing the process does not.
	config.UnsafeNoFsync = true
	config.ListenClientUrls = types.MustNewURLs([]string{etcdEndpoint})
	// There are no other members. The addresses they would use, of which one is part of the
	// member's identity, stay the default ones, but nothing listens there.
	config.ListenPeerUrls = nil
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.EnableGRPCGateway = false
	config.LogLevel = "warn"

	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	defer etcd.Close()

	started := etcd.Server.ReadyNotify()
	for {
		select {
		case <-started:
			ready()
			started = nil
		case <-ctx.Done():
			return nil
		case err := <-etcd.Err():
			return err
		case <-etcd.Server.StopNotify():
			return errors.New("stopped by itself")
		}
	}
}
