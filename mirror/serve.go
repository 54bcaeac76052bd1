package mirror

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/mirror/status"
	"service-mirror.io/service-mirror/remote/failure"
)

// Handler serves the state of the program. overview is what the page shows.
func (c *Controller) Handler(overview func() status.Page, listen Listen) http.Handler {
	return Served{Status: status.Handler(overview), Metrics: c.options.Metrics.Gatherer(), Stuck: func() error { return errors.Join(c.workers.Stuck(), c.failover.Stuck()) }, Ready: c.workers.Ready()}.Handler(listen)
}

// Served is what a program serves of its state.
type Served struct {
	Status  http.Handler // of its page
	Metrics prometheus.Gatherer
	Stuck   func() error
	Ready   <-chan struct{} // closed when its caches are filled
}

// Handler serves the status page at / and the same as /status.json, /metrics, /healthz and /readyz and, on request,
// /debug/pprof/. Probes are answered under any name, and however many other requests there are.
func (s Served) Handler(listen Listen) http.Handler {
	mux, hosts := http.NewServeMux(), listen.hosts()
	mux.Handle("/", hosts.guard(limited(s.Status)))
	mux.Handle("/metrics", hosts.guard(limited(promhttp.HandlerFor(s.Metrics, promhttp.HandlerOpts{}))))
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.Stuck()) })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		select {
		case <-s.Ready:
			answer(w, nil)
		default:
			answer(w, fmt.Errorf("the local cluster's caches are not synced yet"))
		}
	})
	if listen.Profile {
		profiles := http.NewServeMux()
		profiles.HandleFunc("/debug/pprof/", pprof.Index)
		profiles.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		profiles.HandleFunc("/debug/pprof/profile", pprof.Profile)
		profiles.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		profiles.HandleFunc("/debug/pprof/trace", pprof.Trace)
		mux.Handle("/debug/pprof/", hosts.guard(limited(profiles)))
	}
	return mux
}

// How long a client may take. What it has not read takes memory; a profile takes 30 s by default.
const (
	readTimeout  = 10 * time.Second
	writeTimeout = time.Minute
	idleTimeout  = 2 * time.Minute
)

// Serve serves until the context ends.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler) {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: 64 << 10}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		klog.FromContext(ctx).Error(err, "Stopped serving the status page and metrics", "address", listener.Addr())
	}
}

func answer(w http.ResponseWriter, wrong error) {
	if wrong != nil {
		http.Error(w, failure.Line(wrong.Error()), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}
