// Command traffic carries real requests from a pod in one cluster to a Service
// in another, on this machine: control planes, kube-proxy, CoreDNS, the gateways
// of deploy/gateways and service-mirror are the real ones; each node and each
// pod is a network namespace, and only what runs in the pods is made up.
//
// Everything happens in a network, a mount and a process namespace of its own:
// nothing is seen of it outside, and all of it goes when the first process in
// it ends, however that comes about.
//
//	traffic demo      show one request and the hops that it takes
//	traffic backend   what runs in Paris's pods
//	traffic client    what runs in London's pods
//	traffic measure   a pod of London that compares two ways to a backend
//
// Its tests are the end-to-end tests of the whole way of a request.
package main

import (
	"fmt"
	"os"

	"service-mirror.io/service-mirror/testdata/harness"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: traffic demo")
		os.Exit(2)
	}
	if os.Args[1] == "demo" {
		os.Exit(harness.Isolated(isolation, demo))
	}
	os.Exit(role())
}

// role runs as what goes into a pod, if the arguments say so; else it returns
// -1. The tests' binary has the same roles.
func role() int {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "backend":
			return backend(os.Args[2:])
		case "client":
			return client(os.Args[2:])
		case "measure":
			return measure(os.Args[2:])
		}
	}
	return -1
}
