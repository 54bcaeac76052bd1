// Package record is what the publisher of a cluster says of each Service that the cluster exports: by which names
// and at which ports of the gateway it can be reached. A record is a ConfigMap in the publisher's namespace, which
// other clusters read. It is pure, and what it reads is untrusted.
package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"
)

const (
	// Label is on every record; its value is Version.
	Label = "service-mirror.io/record"
	// Version is that of the schema. A reader ignores records of any other.
	Version = "v1"
	// DataKey is the key of the ConfigMap's only entry, which is a Record in JSON.
	DataKey = "record.json"
)

// Limits of one record: a reader refuses more.
const (
	MaxBytes = 16 << 10
	MaxPorts = 100
	MaxHosts = 64
)

// Record is what is published of one exported Service.
type Record struct {
	Service cache.ObjectName `json:"-"` // in JSON, namespace and name are fields of their own
	// UID is that of the exported Service: a record of a Service that was deleted and created again is of another.
	UID types.UID `json:"uid"`
	// Hosts are the names that are routed to the Service, without ports.
	Hosts []string `json:"hosts,omitempty"`
	// Ports are those of the Service, and how the gateway routes to them. Of one that is not listed nothing is known
	// here: readers go by what else they know of the gateway and of the Service.
	Ports []Port `json:"ports,omitempty"`
	// Ready tells whether the Service has an endpoint that is ready.
	Ready bool `json:"ready"`
}

// Port is one port of an exported Service, and the gateway port that serves it.
type Port struct {
	Port     int32           `json:"port"`
	Protocol corev1.Protocol `json:"protocol"`
	// Gateway is the port of the gateway; 0: none, for the reason in Problem.
	Gateway int32 `json:"gateway,omitempty"`
	// Class is what the gateway takes the port for: http, https, grpc, tcp, udp.
	Class string `json:"class"`
	// Shared tells that the gateway port serves other Services too, and tells them apart by Host or SNI; without
	// it, the gateway port is this Service's alone.
	Shared bool `json:"shared,omitempty"`
	// Problem is why there is no gateway port.
	Problem string `json:"problem,omitempty"`
}

// NameOf is the name of the ConfigMap that has the record of a Service. No namespace has a dot in its name, so that
// no two Services share one.
func NameOf(service cache.ObjectName) string { return service.Namespace + "." + service.Name }

// ServiceOf is the Service whose record a ConfigMap of this name has; zero: no Service's.
func ServiceOf(configMap string) cache.ObjectName {
	namespace, name, found := strings.Cut(configMap, ".")
	if !found || namespace == "" || name == "" {
		return cache.ObjectName{}
	}
	return cache.NewObjectName(namespace, name)
}

// stored is a Record as it is written.
type stored struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Record
}

// ConfigMap is a record as it is written into a namespace. The same record makes the same bytes.
func (r Record) ConfigMap(namespace string) (*corev1.ConfigMap, error) {
	text, err := json.Marshal(stored{r.Service.Namespace, r.Service.Name, r})
	if err != nil {
		return nil, err
	}
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: NameOf(r.Service), Labels: map[string]string{Label: Version}},
		Data:       map[string]string{DataKey: string(text)},
	}, nil
}

// Parse reads a record. Its Service is the one that the ConfigMap's name says.
func Parse(configMap *corev1.ConfigMap) (Record, error) {
	text, ok := configMap.Data[DataKey]
	switch {
	case configMap.Labels[Label] != Version:
		return Record{}, fmt.Errorf("label %s is %.40q, but only records of version %s are supported: use the same version of service-mirror in both clusters", Label, configMap.Labels[Label], Version)
	case !ok:
		return Record{}, fmt.Errorf("it has no key %s", DataKey)
	case len(text) > MaxBytes:
		return Record{}, fmt.Errorf("it has %d bytes, more than %d", len(text), MaxBytes)
	}
	var s stored
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return Record{}, fmt.Errorf("malformed record: %.200v", err)
	}
	s.Service = cache.NewObjectName(s.Namespace, s.Name)
	if NameOf(s.Service) != configMap.Name {
		return Record{}, fmt.Errorf("it is about %.70q in namespace %.70q, which does not match its name", s.Name, s.Namespace)
	}
	return s.Record, s.validate()
}

func (r Record) validate() error {
	switch {
	case r.UID == "":
		return errors.New("it has no UID of the exported Service")
	case len(r.Ports) > MaxPorts:
		return fmt.Errorf("it has %d ports, more than %d", len(r.Ports), MaxPorts)
	case len(r.Hosts) > MaxHosts:
		return fmt.Errorf("it has %d hosts, more than %d", len(r.Hosts), MaxHosts)
	}
	for _, host := range r.Hosts {
		if len(validation.IsDNS1123Subdomain(host)) > 0 {
			return fmt.Errorf("host %.70q is not a DNS name", host)
		}
	}
	for i, p := range r.Ports {
		if err := p.validate(); err != nil {
			return fmt.Errorf("port %d: %w", p.Port, err)
		}
		if slices.ContainsFunc(r.Ports[:i], func(other Port) bool { return other.Port == p.Port && other.Protocol == p.Protocol }) {
			return fmt.Errorf("port %d/%.10s is duplicated", p.Port, p.Protocol)
		}
	}
	return nil
}

func (p Port) validate() error {
	switch p.Protocol {
	case corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP:
	default:
		return fmt.Errorf("protocol %.20q is not TCP, UDP or SCTP", p.Protocol)
	}
	if len(validation.IsValidPortNum(int(p.Port))) > 0 {
		return errors.New("it is not a port number from 1 to 65535")
	}
	if p.Gateway != 0 && len(validation.IsValidPortNum(int(p.Gateway))) > 0 {
		return fmt.Errorf("gateway port %d is not a port number from 1 to 65535", p.Gateway)
	}
	return nil
}

// Of is what a record says of one port; nil: nothing.
func (r Record) Of(port int32, protocol corev1.Protocol) *Port {
	for i := range r.Ports {
		if r.Ports[i].Port == port && r.Ports[i].Protocol == protocol {
			return &r.Ports[i]
		}
	}
	return nil
}
