package mirror

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Listen is where the state of the program is served, and under which names.
type Listen struct {
	Address string // ADDRESS:PORT; empty: nowhere
	Hosts   []string
	Profile bool
}

// Add adds the flags.
func (l *Listen) Add(f *pflag.FlagSet) {
	f.StringVar(&l.Address, "listen", "", "`ADDRESS:PORT` to serve the status page, /status.json, /metrics, /healthz and /readyz on, such as :8080 (default: not served)")
	f.StringSliceVar(&l.Hosts, "listen-host", nil, "`NAME,...` accepted in the Host header, in addition to IP addresses, localhost and the pod's name, such as the host name of a Service or an Ingress, or of the API server for proxied requests. Other names are refused to protect against DNS rebinding")
	f.BoolVar(&l.Profile, "pprof", false, "also serve Go profiles at /debug/pprof/")
}

// Validate lists what is wrong with the flags.
func (l *Listen) Validate() error {
	var mistakes []error
	if l.Address != "" {
		if err := validateListen(l.Address); err != nil {
			mistakes = append(mistakes, fmt.Errorf("--listen: %w", err))
		}
	}
	for _, host := range l.Hosts {
		if len(validation.IsDNS1123Subdomain(normalHost(host))) > 0 {
			mistakes = append(mistakes, fmt.Errorf("--listen-host: %.300q is not a host name: set one without a port", host))
		}
	}
	for _, one := range []struct {
		flag  string
		given bool
	}{{"--listen-host", len(l.Hosts) > 0}, {"--pprof", l.Profile}} {
		if one.given && l.Address == "" {
			mistakes = append(mistakes, fmt.Errorf("%s requires --listen", one.flag))
		}
	}
	return errors.Join(mistakes...)
}

func validateListen(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%.300q is not ADDRESS:PORT: set one such as :8080", address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return fmt.Errorf("%.300q has no port number: set ADDRESS:PORT, such as :8080", address)
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && len(validation.IsDNS1123Subdomain(normalHost(host))) > 0 {
		return fmt.Errorf("%.300q has an invalid host: set ADDRESS:PORT, such as :8080", address)
	}
	return nil
}

// hosts are the names under which this is served. A web page may have its own name resolved to an address here
// (DNS rebinding), and the browser then lets it read what comes; in that case Host has the page's name. An IP
// address in Host is nobody's to point elsewhere, so it is served under all of its own: those of the pod, of a
// Service, of a node, and loopback.
type hosts []string

func (l *Listen) hosts() hosts {
	// The API server passes requests on with the Host that it got: these are its names in each cluster.
	own := hosts{"localhost", "kubernetes.default", "kubernetes.default.svc"}
	if name, err := os.Hostname(); err == nil {
		own = append(own, normalHost(name))
	}
	if host, _, err := net.SplitHostPort(l.Address); err == nil && host != "" {
		own = append(own, normalHost(host))
	}
	for _, host := range l.Hosts {
		own = append(own, normalHost(host))
	}
	return own
}

func normalHost(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// serves tells whether a request's Host, with a port or without, is one of them. Without one, as of HTTP/1.0,
// no browser sent the request.
func (h hosts) serves(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = normalHost(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return true
	}
	return slices.Contains(h, host) || strings.HasSuffix(host, ".localhost")
}

// guard refuses requests with another Host.
func (h hosts) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !h.serves(r.Host) {
			w.Header().Set("X-Content-Type-Options", "nosniff")
			http.Error(w, fmt.Sprintf("host name %.300q is not accepted: add it to --listen-host, or use an IP address", r.Host), http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// maxRequests is how many requests are answered at once, of those whose answers are large.
const maxRequests = 8

// limited refuses requests beyond maxRequests at once: an answer takes memory until it has been read.
func limited(next http.Handler) http.Handler {
	slots := make(chan struct{}, maxRequests)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			next.ServeHTTP(w, r)
		default:
			w.Header().Set("Retry-After", "1")
			http.Error(w, fmt.Sprintf("too many requests (%d) in progress: retry later", maxRequests), http.StatusServiceUnavailable)
		}
	})
}
