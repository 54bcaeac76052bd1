package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	authorizationv1 "k8s.io/client-go/kubernetes/typed/authorization/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	discoveryv1 "k8s.io/client-go/kubernetes/typed/discovery/v1"
	networkingv1 "k8s.io/client-go/kubernetes/typed/networking/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/remote/gatewayapi"
	"service-mirror.io/service-mirror/remote/logging"
)

// Client is the part of a Kubernetes client that this program uses. With client-go's own,
// which has every API group, the program takes a fifth more memory.
type Client interface {
	AuthorizationV1() authorizationv1.AuthorizationV1Interface
	CoordinationV1() coordinationv1.CoordinationV1Interface
	CoreV1() corev1.CoreV1Interface
	DiscoveryV1() discoveryv1.DiscoveryV1Interface
	NetworkingV1() networkingv1.NetworkingV1Interface
}

// GatewayReader is a Client that can read the Gateway API; fakes cannot.
type GatewayReader interface {
	Gateways(namespace string) Lister[*gatewayapi.GatewayList]
	ListenerSets() Lister[*gatewayapi.ListenerSetList]
}

type client struct {
	gatewayAPI    *gatewayapi.Client
	authorization *authorizationv1.AuthorizationV1Client
	coordination  *coordinationv1.CoordinationV1Client
	core          *corev1.CoreV1Client
	discovery     *discoveryv1.DiscoveryV1Client
	networking    *networkingv1.NetworkingV1Client
}

func (c *client) AuthorizationV1() authorizationv1.AuthorizationV1Interface { return c.authorization }
func (c *client) CoordinationV1() coordinationv1.CoordinationV1Interface    { return c.coordination }
func (c *client) CoreV1() corev1.CoreV1Interface                            { return c.core }
func (c *client) DiscoveryV1() discoveryv1.DiscoveryV1Interface             { return c.discovery }
func (c *client) NetworkingV1() networkingv1.NetworkingV1Interface          { return c.networking }

func (c *client) Gateways(namespace string) Lister[*gatewayapi.GatewayList] {
	return c.gatewayAPI.Gateways(namespace)
}
func (c *client) ListenerSets() Lister[*gatewayapi.ListenerSetList] {
	return c.gatewayAPI.ListenerSets()
}

// NewClient makes a client; its groups share connections, and the limit on requests.
func NewClient(cfg *rest.Config) (Client, error) {
	cfg = rest.CopyConfig(cfg)
	if cfg.RateLimiter == nil && cfg.QPS > 0 {
		cfg.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(cfg.QPS, max(1, cfg.Burst))
	}
	transport, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, err
	}
	var c client
	var errs [6]error
	c.authorization, errs[0] = authorizationv1.NewForConfigAndClient(cfg, transport)
	c.coordination, errs[1] = coordinationv1.NewForConfigAndClient(cfg, transport)
	c.core, errs[2] = corev1.NewForConfigAndClient(cfg, transport)
	c.discovery, errs[3] = discoveryv1.NewForConfigAndClient(cfg, transport)
	c.networking, errs[4] = networkingv1.NewForConfigAndClient(cfg, transport)
	c.gatewayAPI, errs[5] = gatewayapi.New(cfg, transport)
	return &c, errors.Join(errs[:]...)
}

// dialTimeout is how long a cluster that does not answer is waited for.
const dialTimeout = 3 * time.Second

// ClientOptions are the settings that all clients share.
type ClientOptions struct {
	UserAgent string  // program and version
	QPS       float32 // requests a second of one client; 0: no limit
	Burst     int
}

// Tune sets up a client configuration the way all our clients are: protobuf on
// the wire and nothing compressed, no limit on the client's side (API Priority and Fairness is the
// server's own), a short time to dial, and warnings that do not flood the log.
// network makes the connections. Each answer is bounded.
func (o ClientOptions) Tune(cfg *rest.Config, cluster string, network *Network) *rest.Config {
	cfg = rest.CopyConfig(cfg)
	cfg.ContentType = runtime.ContentTypeProtobuf
	cfg.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	cfg.UserAgent = o.UserAgent
	if cluster != "" {
		cfg.UserAgent += " remote/" + cluster
	}
	// Watches are compressed, too: each holds a decoder of 40 KB, and each event waits for it.
	cfg.DisableCompression = true
	cfg.QPS, cfg.Burst = o.QPS, o.Burst
	if cfg.QPS == 0 {
		cfg.QPS = -1
	}
	cfg.Dial = network.dial
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return &kindCheck{newBounds(next, cluster == ""), basePath(cfg)}
	})
	if cfg.Proxy == nil {
		// The default: a transport with a proxy function is not kept
		// in client-go's process-wide cache, where a reloaded one would stay.
		cfg.Proxy = http.ProxyFromEnvironment
	}
	cfg.WarningHandlerWithContext = &warnings{}
	return cfg
}

// basePath is the path at which an API server is: behind some proxies it is not the root.
func basePath(cfg *rest.Config) string {
	url, _, err := rest.DefaultServerUrlFor(cfg)
	if err != nil {
		return "" // no request can be made
	}
	return url.Path
}

// warnings logs each warning of an API server once.
type warnings struct {
	mu   sync.Mutex
	seen map[string]bool
}

// maxWarnings and maxWarning bound what is remembered: the texts are the server's.
const maxWarnings, maxWarning = 100, 1000

func (w *warnings) HandleWarningHeaderWithContext(ctx context.Context, code int, _ string, text string) {
	// Every answer about v1 Endpoints carries this since Kubernetes 1.33. They
	// stay: kube-proxy reads the EndpointSlices that Kubernetes makes of them.
	if code != 299 || text == "" || strings.HasPrefix(text, "v1 Endpoints is deprecated") {
		return
	}
	text = fmt.Sprintf("%.*s", maxWarning, text)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen[text] || len(w.seen) >= maxWarnings {
		return
	}
	if w.seen == nil {
		w.seen = map[string]bool{}
	}
	w.seen[text] = true
	logging.Warn(klog.FromContext(ctx), "Warning from API server", "warning", text)
}
