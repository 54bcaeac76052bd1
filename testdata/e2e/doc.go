// Package e2e runs the built daemon, as a process with a ServiceAccount of its
// own, between real Kubernetes API servers, and checks with a client of its own
// what comes of it. Every test has its own remotes, namespace, credentials and
// daemon and runs beside the others; the clusters are shared.
package e2e
