package gateway

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Class is what a port must be able to carry, as far as a gateway has to know it: a gateway routes
// HTTP by its Host header and TLS by its SNI, but cannot tell Services apart by anything else.
type Class string

// The classes.
const (
	HTTP    Class = "http"  // HTTP/1.1 without TLS, WebSocket included
	HTTPS   Class = "https" // TLS with an SNI
	GRPC    Class = "grpc"  // HTTP/2 without TLS (prior knowledge)
	TCP     Class = "tcp"   // TCP that is known not to be HTTP
	UDP     Class = "udp"
	SCTP    Class = "sctp"
	Unknown Class = "unknown" // TCP of which nothing is known
)

// Protocol is what is known of one application protocol.
type Protocol struct {
	Needs  Class   // of the gateway, if an exported port speaks it
	Serves []Class // if a port of a gateway speaks it
	// Words are the values of appProtocol and the names of ports that say so. As a name, each can have a
	// suffix after a hyphen.
	Words []string
	// Numbers are the port numbers that say so where neither appProtocol nor the name does.
	Numbers []int32
}

// Protocols are all that are known. The names are those of Istio's protocol selection, of KEP-3726 (the ones
// under kubernetes.io), of Traefik (web and websecure), and of the services that IANA registers under the
// numbers listed; deploy/guides/ports.md has the same table. A number is listed only where it is not
// in common use for anything else: 9090, which is Prometheus' and many a gRPC server's, is not.
var Protocols = []Protocol{
	{Needs: HTTP, Serves: []Class{HTTP}, Words: []string{"http", "web", "ws", "kubernetes.io/ws", "grpc-web"}, Numbers: []int32{80, 8080}},
	{Needs: HTTPS, Serves: []Class{HTTPS}, Words: []string{"https", "websecure", "tls", "wss", "kubernetes.io/wss"}, Numbers: []int32{443, 8443}},
	{Needs: GRPC, Serves: []Class{GRPC}, Words: []string{"grpc", "h2c", "kubernetes.io/h2c"}, Numbers: []int32{50051}},
	{Needs: GRPC, Serves: []Class{HTTP, GRPC}, Words: []string{"http2"}},
	tcpOnly([]string{"tcp"}),
	tcpOnly([]string{"postgres", "postgresql"}, 5432),
	tcpOnly([]string{"mysql", "mariadb"}, 3306, 33060),
	tcpOnly([]string{"mssql", "ms-sql-s"}, 1433),
	tcpOnly([]string{"oracle"}, 1521),
	tcpOnly([]string{"cockroachdb"}, 26257),
	tcpOnly([]string{"mongo", "mongodb"}, 27017),
	tcpOnly([]string{"cassandra", "cql"}, 9042),
	tcpOnly([]string{"redis"}, 6379),
	tcpOnly([]string{"memcache", "memcached"}, 11211),
	tcpOnly([]string{"zookeeper"}, 2181),
	tcpOnly([]string{"kafka"}, 9092),
	tcpOnly([]string{"nats"}, 4222),
	tcpOnly([]string{"amqp", "amqps"}, 5671, 5672),
	tcpOnly([]string{"mqtt", "mqtts", "secure-mqtt"}, 1883, 8883),
	tcpOnly([]string{"ldap", "ldaps"}, 389, 636),
	tcpOnly([]string{"smtp", "smtps", "submission"}, 25, 465, 587),
	tcpOnly([]string{"imap", "imaps"}, 143, 993),
	tcpOnly([]string{"pop3", "pop3s"}, 110, 995),
	tcpOnly([]string{"dns", "domain"}, 53),
	tcpOnly([]string{"ftp", "ftps"}, 21),
	tcpOnly([]string{"ssh", "sftp"}, 22),
}

func tcpOnly(words []string, numbers ...int32) Protocol {
	return Protocol{Needs: TCP, Serves: []Class{TCP}, Words: words, Numbers: numbers}
}

// byWord and byNumber are Protocols as they are looked up.
var byWord, byNumber = func() (map[string]*Protocol, map[int32]*Protocol) {
	words, numbers := map[string]*Protocol{}, map[int32]*Protocol{}
	for i := range Protocols {
		for _, word := range Protocols[i].Words {
			words[word] = &Protocols[i]
		}
		for _, number := range Protocols[i].Numbers {
			numbers[number] = &Protocols[i]
		}
	}
	return words, numbers
}()

// known is what a TCP port says of its application protocol: by its appProtocol, else by its name, else by its
// number; nil: nothing. An appProtocol that is not listed says nothing.
func known(port corev1.ServicePort) *Protocol {
	if port.AppProtocol != nil {
		if p := byWord[strings.ToLower(*port.AppProtocol)]; p != nil {
			return p
		}
	}
	// The longest one counts: grpc-web is not gRPC.
	for name, more := port.Name, true; more; {
		if p := byWord[name]; p != nil {
			return p
		}
		end := strings.LastIndexByte(name, '-')
		if more = end > 0; more {
			name = name[:end]
		}
	}
	return byNumber[port.Port]
}

// ClassOf is the class that an exported port needs.
func ClassOf(port corev1.ServicePort) Class {
	switch protocol(port) {
	case corev1.ProtocolTCP:
	case corev1.ProtocolSCTP:
		return SCTP
	default:
		return UDP
	}
	if p := known(port); p != nil {
		return p.Needs
	}
	return Unknown
}

// serves tells whether a port of a gateway can carry a class.
func serves(port corev1.ServicePort, class Class) bool {
	if protocol(port) != corev1.ProtocolTCP {
		return false
	}
	p := known(port)
	return p != nil && slices.Contains(p.Serves, class)
}
