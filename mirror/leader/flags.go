package leader

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"
)

// Flags are what the flags say of the election.
type Flags struct {
	On       bool
	Lease    cache.ObjectName
	Duration time.Duration
	lease    string // as it is typed
}

// Add adds the flags.
func (e *Flags) Add(f *pflag.FlagSet) {
	f.BoolVar(&e.On, "leader-elect", false, "write only while holding a Lease: of several replicas one leads, and the others stand by with filled caches")
	f.StringVar(&e.lease, "leader-elect-lease", "", "`NS/NAME` of the Lease (default: service-mirror, in the pod's own namespace)")
	f.DurationVar(&e.Duration, "leader-elect-duration", 15*time.Second, "`DURATION` after a leader's last sign when another takes over, at least 3s")
}

// Complete finds the Lease, by default in a namespace, and lists what is wrong
// with the flags.
func (e *Flags) Complete(namespace string) error {
	var wrong []error
	if e.Duration < 3*time.Second {
		wrong = append(wrong, fmt.Errorf("--leader-elect-duration: %v is less than 3s", e.Duration))
	}
	lease := e.lease
	switch {
	case lease == "" && namespace != "":
		lease = namespace + "/service-mirror"
	case lease == "" && e.On:
		wrong = append(wrong, errors.New("--leader-elect-lease: give NS/NAME: POD_NAMESPACE is not set in the environment"))
	}
	if lease != "" {
		space, name, _ := strings.Cut(lease, "/")
		if len(validation.IsDNS1123Label(space)) > 0 || len(validation.IsDNS1123Subdomain(name)) > 0 {
			wrong = append(wrong, fmt.Errorf("--leader-elect-lease: %.320q is not NAMESPACE/NAME", lease))
		}
		e.Lease = cache.NewObjectName(space, name)
	}
	return errors.Join(wrong...)
}
