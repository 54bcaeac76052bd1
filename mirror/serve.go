package mirror

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/mirror/status"
)

// Handler serves the state of the program: the status page at / and the same as /status.json, /metrics,
// /healthz and /readyz and, on request, /debug/pprof/. overview is what the page shows.
func (c *Controller) Handler(overview func() status.Page, profile bool) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", status.Handler(overview))
	mux.Handle("/metrics", promhttp.HandlerFor(c.options.Metrics.Gatherer(), promhttp.HandlerOpts{}))
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, c.state.stuck()) })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		select {
		case <-c.state.ready:
			answer(w, nil)
		default:
			answer(w, fmt.Errorf("the local cluster's caches are not filled yet"))
		}
	})
	if profile {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// Serve serves until the context ends.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler) {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		klog.FromContext(ctx).Error(err, "The status page and metrics are no longer served", "address", listener.Addr())
	}
}

func answer(w http.ResponseWriter, wrong error) {
	if wrong != nil {
		http.Error(w, wrong.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}
