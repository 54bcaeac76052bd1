package plan

import (
	"errors"
	"fmt"

	"service-mirror.io/service-mirror/gateway"
)

// throughIngress assigns the one port that an Ingress can route to: each of its names has one backend.
func (d *decision) throughIngress(a *assignment, main bool) error {
	switch {
	case a.class == gateway.HTTPS:
		return errors.New("an Ingress cannot pass TLS through: use --to gateway-api and a TLS listener, or set --tls-secret and also export an HTTP port, for which the ingress controller terminates TLS")
	case !main:
		return errors.New("an Ingress routes to one HTTP port of a Service: use --to gateway-api for the others")
	case a.class == gateway.GRPC:
		return errors.New("an Ingress cannot route HTTP/2 without TLS: use --to gateway-api")
	case len(d.hosts) == 0:
		return errors.New("no host name is routed to the Service")
	}
	if err := d.known(Ingress); err != nil {
		return err
	}
	a.kind, a.gateway, a.shared = Ingress, 80, true
	return nil
}

// ingress adds the Ingress, with all names.
func (d *decision) ingress() {
	for _, a := range d.assigned {
		if a.kind != Ingress || a.class == gateway.HTTPS {
			continue
		}
		var rules []any
		for _, host := range d.hosts {
			rules = append(rules, map[string]any{"host": host, "http": map[string]any{"paths": []any{map[string]any{
				"path": "/", "pathType": "Prefix",
				"backend": map[string]any{"service": map[string]any{"name": d.snapshot.Key.Name, "port": map[string]any{"number": int64(a.port.Port)}}},
			}}}})
		}
		spec := map[string]any{"ingressClassName": d.policy.IngressClass, "rules": rules}
		if d.policy.TLSSecret != "" {
			spec["tls"] = []any{map[string]any{"hosts": anySlice(d.hosts), "secretName": d.policy.TLSSecret}}
		}
		d.want(Ingress, fmt.Sprintf("%s%s", d.snapshot.Key.Name, suffix), spec)
	}
}
