package leader

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"
)

// Options are the operator's decisions about the election.
type Options struct {
	On       bool
	Lease    cache.ObjectName // zero where the election is off
	Duration time.Duration    // of the lease
}

// Flags are the flags about the election, as they are typed.
type Flags struct {
	Namespace string // of the pod, for the default Lease; empty: not in a pod
	Name      string // of the default Lease; empty: service-mirror
	lease     string
	options   Options
}

// minDuration leaves time for a few renewals and for clocks that differ a little.
const minDuration = 3 * time.Second

// Add adds the flags.
func (raw *Flags) Add(f *pflag.FlagSet) {
	f.BoolVar(&raw.options.On, "leader-elect", false, "run leader election: of several replicas only the leader writes, the others are standbys with synced caches")
	f.StringVar(&raw.lease, "leader-elect-lease", "", "`NS/NAME` of the Lease (default: "+raw.name()+", in the pod's own namespace)")
	f.DurationVar(&raw.options.Duration, "leader-elect-duration", 15*time.Second, "`DURATION` after the leader's last renewal until another replica takes over, at least 3s")
}

// Options are what the flags say; the error lists what is wrong with them, by flag.
func (raw *Flags) Options() (Options, error) {
	var mistakes []error
	options := raw.options
	if options.Duration < minDuration {
		mistakes = append(mistakes, fmt.Errorf("--leader-elect-duration: %v is less than %v: set a longer duration", options.Duration, minDuration))
	}
	lease := raw.lease
	switch {
	case lease == "" && raw.Namespace != "":
		lease = raw.Namespace + "/" + raw.name()
	case lease == "" && options.On:
		mistakes = append(mistakes, errors.New("--leader-elect-lease is required because POD_NAMESPACE is not set: set NS/NAME"))
	}
	if lease != "" {
		namespace, name, _ := strings.Cut(lease, "/")
		if len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1123Subdomain(name)) > 0 {
			mistakes = append(mistakes, fmt.Errorf("--leader-elect-lease: %.320q is not NS/NAME of a Lease", lease))
		}
		if options.On {
			options.Lease = cache.NewObjectName(namespace, name)
		}
	}
	return options, errors.Join(mistakes...)
}

func (raw *Flags) name() string { return cmp.Or(raw.Name, "service-mirror") }

// Elect has Options give the Lease of the replicas' election, whatever the flags say of this process.
func (raw *Flags) Elect() { raw.options.On = true }
