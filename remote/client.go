package remote

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// dialTimeout is how long a cluster that does not answer is waited for.
const dialTimeout = 3 * time.Second

// ClientOptions are the settings that all clients share.
type ClientOptions struct {
	UserAgent string  // program and version
	QPS       float32 // requests a second of one client; 0: no limit
	Burst     int
}

// Tune sets up a client configuration the way all our clients are: protobuf on
// the wire, no limit on the client's side (API Priority and Fairness is the
// server's own), a short time to dial, and warnings that do not flood the log.
// dialled, where set, is called for each new connection.
func (o ClientOptions) Tune(cfg *rest.Config, cluster string, dialled func()) *rest.Config {
	cfg = rest.CopyConfig(cfg)
	cfg.ContentType = runtime.ContentTypeProtobuf
	cfg.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	cfg.UserAgent = o.UserAgent
	if cluster != "" {
		cfg.UserAgent += " remote/" + cluster
	}
	cfg.QPS, cfg.Burst = o.QPS, o.Burst
	if cfg.QPS == 0 {
		cfg.QPS = -1
	}
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err == nil && dialled != nil {
			dialled()
		}
		return conn, err
	}
	if cfg.Proxy == nil {
		// The default, said aloud: a transport with a proxy function is not kept
		// in client-go's process-wide cache, where a reloaded one would stay.
		cfg.Proxy = http.ProxyFromEnvironment
	}
	cfg.WarningHandlerWithContext = &warnings{}
	return cfg
}

// warnings logs each warning of an API server once.
type warnings struct {
	mu   sync.Mutex
	seen map[string]bool
}

// maxWarnings bounds what is remembered: the texts are the server's.
const maxWarnings = 100

func (w *warnings) HandleWarningHeaderWithContext(ctx context.Context, code int, _ string, text string) {
	// Every answer about v1 Endpoints carries this since Kubernetes 1.33. They
	// stay: kube-proxy reads the EndpointSlices that Kubernetes makes of them.
	if code != 299 || text == "" || strings.HasPrefix(text, "v1 Endpoints is deprecated") {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen[text] || len(w.seen) >= maxWarnings {
		return
	}
	if w.seen == nil {
		w.seen = map[string]bool{}
	}
	w.seen[text] = true
	klog.FromContext(ctx).Info("The API server warns", "warning", text)
}
