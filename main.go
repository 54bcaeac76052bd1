// Command service-mirror runs in one Kubernetes cluster and keeps there, for
// every Service that other clusters export, a Service whose endpoints are that
// cluster's gateway.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/mirror/command"
	"service-mirror.io/service-mirror/remote/logging"
)

// version is set by the linker for releases.
var version = ""

func main() {
	// Garbage is a large part of what a small program takes, and it has time to collect it.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	ctx, stop := signal.NotifyContext(klog.NewContext(context.Background(), logging.New()), os.Interrupt, syscall.SIGTERM)
	defer stop()
	command.Version = version
	code := command.Run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	klog.Flush()
	os.Exit(code)
}
