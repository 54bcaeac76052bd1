package browser

import (
	"fmt"
	"time"

	"service-mirror.io/service-mirror/mirror/status"
)

// Texts as a remote could send them: they must appear on the page as texts and have no
// other effect.
const (
	hostile = `"><script>document.title = "owned"</script><img src=x onerror="document.title = 'owned'">`
	long    = "a-service-with-the-longest-name-there-can-be-in-a-namespace-and"
)

// now is the time of the pages.
func now() time.Time { return time.Now().Truncate(time.Second) }

// nothing is a daemon that has just started, without remotes.
func nothing() status.Page {
	return status.Page{Local: "https://kubernetes-control-plane.london.example.com:6443", Version: "v1.0.0", Started: now().Add(-20 * time.Second), Now: now(), Synced: true}
}

// three is a small installation in which one of each kind is unhealthy.
func three() status.Page {
	p := status.Page{
		Local: "london", Version: "v1.0.0", ElectionOn: true, Leader: true,
		Started: now().Add(-53 * time.Hour), Now: now(), Synced: true,
		Remotes: []status.Remote{
			{
				Name: "paris", State: status.Up, Since: now().Add(-5 * time.Hour), LastSync: now().Add(-5 * time.Hour), LastEvent: now().Add(-3 * time.Minute),
				UID: "5f0b7c1e-3c6a-4a8e-9a55-0d7f3ce4b0a1", Exported: 2,
				Gateways: []status.Gateway{
					{Name: "ingress/gateway", Known: true, Addresses: []status.Address{{IP: "203.0.113.1", Health: status.Ready}, {IP: "203.0.113.2", Health: status.NotReady}, {IP: "2001:db8:113::1", Health: status.Ready}}},
				},
			},
			{
				Name: "berlin", State: status.Down, Since: now().Add(-11 * time.Minute), LastSync: now().Add(-26 * time.Hour), LastEvent: now().Add(-12 * time.Minute),
				UID: "b1946ac9-2492-4d23-a7d1-2b3a1f9a8c77", Exported: 1,
				Problems: []status.Problem{{Part: "services", Cause: "connect: connection refused"}},
				Gateways: []status.Gateway{
					{Name: "ingress/gateway", Known: true, Addresses: []status.Address{{IP: "198.51.100.7", Health: status.Unprobed}}},
				},
			},
			{Name: "madrid", State: status.Connecting, Since: now().Add(-4 * time.Second)},
		},
		Mirrors: []status.Mirror{
			{
				Namespace: "default", Name: "bar-paris", Cluster: "paris", Source: "default/bar", State: status.Mirrored, ClusterIP: "10.96.14.3",
				Ports: []string{"http 80/TCP"}, Endpoints: []string{"203.0.113.1:80", "[2001:db8:113::1]:80"},
			},
			{
				Namespace: "default", Name: "postgres-paris", Cluster: "paris", Source: "default/postgres", State: status.Incomplete, ClusterIP: "10.96.201.77",
				Ports: []string{"sql 5432/TCP", "metrics 9187/TCP", "dns 53/UDP"},
				Mapping: []status.Mapping{
					{Name: "sql", Port: 5432, Protocol: "TCP", Class: "tcp"},
					{Name: "metrics", Port: 9187, Protocol: "TCP", Class: "unknown", GatewayPort: 80, Line: "assumed HTTP"},
					{Name: "dns", Port: 53, Protocol: "UDP", Class: "udp", GatewayPort: 15353, Line: "reserved by annotation"},
				},
				Problems: []status.MirrorProblem{
					{Reason: "PortNotServed", Message: "port sql (5432/TCP): it is not HTTP, and no gateway port is reserved for it: reserve one with the annotation service-mirror.io/gateway-ports on the exported Service\nport dns (53/UDP): the gateway Service does not have that port"},
					{Reason: "ClusterIPLost", Message: "the Service was recreated without its ClusterIP 10.96.201.70, which was taken: clients that keep addresses must resolve it again"},
					{Reason: "WriteFailed", Message: "create EndpointSlice: admission webhook \"policy.example.com\" denied the request: " + long + ": label team is missing: it is retried"},
				},
			},
			{
				Namespace: "shop", Name: "cart-berlin", Cluster: "berlin", Source: "shop/cart", State: status.Waiting, Ports: []string{"http 8080/TCP"},
				Problems: []status.MirrorProblem{{Reason: "NamespaceMissing", Message: "the namespace shop does not exist here"}},
			},
		},
	}
	return p
}

// hundreds is an installation of 310 exported Services whose problems have few causes: a lost remote, and a gateway
// without an address, among others.
func hundreds() status.Page {
	p := three()
	p.Remotes = p.Remotes[:2]
	p.Remotes[0].Exported, p.Remotes[1].Exported = 250, 20
	p.Remotes[0].Gateways[0].Addresses = p.Remotes[0].Gateways[0].Addresses[:1]
	p.Remotes[1].Problems = []status.Problem{
		{Part: "identity", Cause: "connect: connection refused"}, {Part: "watch of exported Services", Cause: "connect: connection refused"},
		{Part: "watch of gateway ingress/gateway", Cause: "connect: connection refused"}}
	p.Remotes = append(p.Remotes, status.Remote{Name: "oslo", State: status.Up, Since: now().Add(-time.Hour), LastSync: now().Add(-time.Hour), UID: "7d7f3ce4-3c6a-4a8e-9a55-5f0b7c1eb0a1",
		Exported: 40, Gateways: []status.Gateway{{Name: "ingress/gateway", Known: true, Problem: "Service ingress/gateway has no address yet: its load balancer has not given it one"}}})
	p.Mirrors = nil
	for i := range 310 {
		remote := "paris"
		switch {
		case i >= 290:
			remote = "berlin"
		case i >= 250:
			remote = "oslo"
		}
		name := fmt.Sprintf("service-%03d", i)
		m := status.Mirror{
			Namespace: fmt.Sprintf("team-%02d", i%7), Name: name + "-" + remote, Cluster: remote, Source: fmt.Sprintf("team-%02d/%s", i%7, name),
			State: status.Mirrored, ClusterIP: fmt.Sprintf("10.96.%d.%d", i/250, i%250+1), Ports: []string{"80/TCP"}, Endpoints: []string{"203.0.113.1"},
			Mapping:  []status.Mapping{{Name: "http", Port: 80, Protocol: "TCP", Class: "http", GatewayPort: 8080, Line: "same class (http)"}},
			Verified: status.Reached, VerifiedAt: now().Add(-time.Minute),
		}
		problem := func(state, reason, message string) {
			m.State, m.Problems, m.Verified = state, []status.MirrorProblem{{Reason: reason, Message: message}}, ""
			m.VerifiedAt = time.Time{}
		}
		switch {
		case remote == "oslo":
			problem(status.Incomplete, "NoAddress", "the gateway ingress/gateway of oslo has no address")
			m.Endpoints = nil
		case remote == "berlin":
			m.Verified = "timed out"
			m.Problems = []status.MirrorProblem{{Reason: "NotReached", Message: "timed out: no connection to 198.51.100.7:80 within 5 s"}}
		case i < 120:
			problem(status.Waiting, "NamespaceMissing", "namespace "+m.Namespace+" does not exist")
			m.ClusterIP, m.Endpoints = "", nil
		case i < 140:
			problem(status.Incomplete, "PortNotServed", "port 5432/TCP: no gateway port is reserved for it")
			m.Endpoints, m.Mapping = nil, []status.Mapping{{Port: 5432, Protocol: "TCP", Class: "tcp"}}
		case i < 150:
			problem(status.Incomplete, "PortNotServed", "port 9090/TCP: no gateway port is reserved for it")
			m.Mapping = append(m.Mapping, status.Mapping{Port: 9090, Protocol: "TCP", Class: "tcp"})
		case i < 154:
			problem(status.Conflict, "Conflict", "Service "+m.Namespace+"/"+m.Name+" already exists and was not created by service-mirror; rename or delete it")
			m.ClusterIP, m.Endpoints = "", nil
		case i < 157:
			problem(status.Mirrored, "ClusterIPLost", "recreated with another ClusterIP: 10.96.7.7 was taken")
		}
		p.Mirrors = append(p.Mirrors, m)
	}
	p.Mirrors = append(p.Mirrors, status.Mirror{Namespace: "team-01", Name: "old-rome", Cluster: "rome", Source: "team-01/old", State: status.Orphan, ClusterIP: "10.96.9.9", Ports: []string{"80/TCP"}, Endpoints: []string{"192.0.2.77"}})
	return p
}

// thousands is a large installation, in which a few are unhealthy and some texts are
// hostile.
func thousands() status.Page {
	p := three()
	p.Mirrors = nil
	for _, name := range []string{"amsterdam", "athens", "lisbon", "oslo", "prague", "rome", "vienna", "warsaw"} {
		p.Remotes = append(p.Remotes, status.Remote{
			Name: name, State: status.Up, Since: now().Add(-50 * time.Hour), LastSync: now().Add(-50 * time.Hour), LastEvent: now().Add(-7 * time.Second),
			UID: "0d7f3ce4-3c6a-4a8e-9a55-5f0b7c1eb0a1", Exported: 1000,
			Gateways: []status.Gateway{{Name: "ingress/gateway", Known: true, Addresses: []status.Address{{IP: "192.0.2.10", Health: status.Ready}}}},
		})
	}
	p.Remotes[1].State, p.Remotes[1].Problems = status.Refused, []status.Problem{{Part: "uid", Cause: hostile}}
	for range 40 {
		g := &p.Remotes[0].Gateways[0]
		g.Addresses = append(g.Addresses, status.Address{IP: fmt.Sprintf("203.0.113.%d", 10+len(g.Addresses)), Health: status.Ready})
	}
	for i := range 10_000 {
		r := p.Remotes[i%len(p.Remotes)].Name
		name := fmt.Sprintf("service-%04d", i)
		m := status.Mirror{
			Namespace: fmt.Sprintf("team-%02d", i%37), Name: name + "-" + r, Cluster: r, Source: fmt.Sprintf("team-%02d/%s", i%37, name),
			State: status.Mirrored, ClusterIP: fmt.Sprintf("10.96.%d.%d", i/250, i%250+1),
			Ports: []string{"http 80/TCP", "https 443/TCP"}, Endpoints: []string{"192.0.2.10:80", "192.0.2.10:443"},
		}
		problem := func(state, reason, message string) {
			m.State, m.Problems = state, []status.MirrorProblem{{Reason: reason, Message: message}}
			if state != status.Incomplete && state != status.Orphan {
				m.ClusterIP, m.Endpoints = "", nil
			}
		}
		switch {
		case i == 100:
			m.Name, m.Source = hostile, hostile
			problem(status.Incomplete, "WriteFailed", hostile)
		case i == 200:
			m.Name = long
			m.Ports, m.Endpoints = nil, nil
			for n := range 70 {
				m.Ports = append(m.Ports, fmt.Sprintf("port-%d %d/TCP", n, 9000+n))
				m.Endpoints = append(m.Endpoints, fmt.Sprintf("[2001:db8:1234:5678:9abc:def0:1234:%x]:%d", n, 9000+n))
			}
			problem(status.Incomplete, "PortNotServed", "the gateway serves no port for port-3 9003/TCP")
		case i%400 == 1:
			problem(status.Waiting, "NamespaceMissing", "the namespace "+m.Namespace+" does not exist here")
		case i%900 == 2:
			problem(status.Conflict, "Conflict", "a Service of this name exists already and is not a mirror")
		case i%1100 == 3:
			problem(status.Refused, "InvalidName", "its name "+m.Name+" would have 66 characters, 3 more than a Service name may have")
		case i%1500 == 4:
			problem(status.Orphan, "Orphan", "no remote of this name is configured")
		}
		p.Mirrors = append(p.Mirrors, m)
	}
	return p
}

// exporting is a small publisher, of which some is unhealthy and some texts are hostile.
func exporting() status.Publisher {
	return status.Publisher{
		Cluster: "paris", Version: "v1.0.0", ElectionOn: true, Leader: true, Started: now().Add(-53 * time.Hour), Now: now(), Synced: true,
		Targets: []status.Target{
			{Kind: "gateway-api", Name: "Gateway ingress/public", State: status.Up, Listeners: []status.Listener{
				{Name: "http", Port: 80, Protocol: "HTTP"}, {Name: "tls", Port: 443, Protocol: "TLS"},
				{Name: "service-mirror-tcp-15000", Port: 15000, Protocol: "TCP", Own: true, Problem: "PortUnavailable: no entry point has port 15000"}}},
			{Kind: "ingress", Name: "IngressClass traefik", State: status.Down, Problem: hostile},
		},
		Services: []status.Service{
			{Namespace: "default", Name: "bar", State: status.Published, Ready: true, Routes: []string{"HTTPRoute bar.service-mirror", "TCPRoute bar.5432.service-mirror"},
				Hosts: []string{"bar-paris.default", "bar-paris.default.svc", "bar-paris.default.svc.cluster.local", "bar.default", "bar.default.svc", "bar.default.svc.cluster.local"},
				Ports: []status.Port{{Port: 80, Protocol: "TCP", Class: "http", GatewayPort: 80, Shared: true}, {Port: 5432, Protocol: "TCP", Class: "tcp", GatewayPort: 15000}, {Port: 53, Protocol: "UDP", Class: "udp", GatewayPort: 15001}}},
			{Namespace: "shop", Name: long, State: status.Incomplete, Ports: []status.Port{{Port: 5432, Protocol: "TCP", Class: "tcp"}},
				Problems: []status.MirrorProblem{{Reason: "PortNotServed", Message: "port 5432/TCP: Gateway ingress/public has no TCP listener: add one, or label it service-mirror.io/listeners=managed"}}},
			{Namespace: hostile, Name: hostile, State: status.Waiting, Hosts: []string{hostile}, Routes: []string{hostile}},
		},
	}
}

// exportingThousands is a large one.
func exportingThousands() status.Publisher {
	p := exporting()
	for i := range 10_000 {
		name := fmt.Sprintf("service-%04d", i)
		p.Services = append(p.Services, status.Service{Namespace: fmt.Sprintf("team-%02d", i%37), Name: name, State: status.Published, Ready: i%50 > 0,
			Hosts: []string{name + "-paris.default", name + ".default", name + ".default.svc"}, Routes: []string{"HTTPRoute " + name + ".service-mirror"},
			Ports: []status.Port{{Port: 80, Protocol: "TCP", Class: "http", GatewayPort: 80, Shared: true}}})
	}
	return p
}
