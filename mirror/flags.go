package mirror

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"
	"service-mirror.io/service-mirror/mirror/plan"
)

// Flags are the flags about mirrors, as they are typed.
type Flags struct {
	options Options
}

// maxWorkers bounds the requests that are under way at once.
const maxWorkers = 1000

// Add adds the flags.
func (raw *Flags) Add(f *pflag.FlagSet) {
	f.StringSliceVar(&raw.options.CopyLabels, "copy-labels", nil, "label `KEY,...` copied from exported Services to their mirrors")
	f.StringSliceVar(&raw.options.CopyAnnotations, "copy-annotations", nil, "annotation `KEY,...` likewise")
	f.BoolVar(&raw.options.IncludeSystem, "include-system", false, "mirror exported Services of kube-system too")
	f.BoolVar(&raw.options.CreateNamespaces, "create-namespaces", false, "create a namespace that an exported Service needs, instead of waiting for it")
	f.StringVar((*string)(&raw.options.EndpointsAPI), "endpoints-api", string(plan.UseEndpoints), "`KIND` of object that carries a mirror's addresses: endpoints or endpointslices; to change it on a running cluster loses no endpoint")
	f.IntVar(&raw.options.MaxDeletes, "max-deletes", 0, "most mirrors of one remote, a `NUMBER`, that are deleted within a minute because they are no longer exported; more wait until they are confirmed with the annotation "+plan.ConfirmAnnotation+"=true (0: no limit)")
	f.IntVar(&raw.options.Workers, "workers", 32, fmt.Sprintf("`NUMBER` of mirrors that are synced in parallel, 1 to %d", maxWorkers))
}

// Options are what the flags say; the error lists what is wrong with them, by flag.
func (raw *Flags) Options() (Options, error) {
	var mistakes []error
	options := raw.options
	for _, list := range []struct {
		flag string
		keys []string
	}{{"--copy-labels", options.CopyLabels}, {"--copy-annotations", options.CopyAnnotations}} {
		for _, key := range list.keys {
			if err := plan.ValidateKeys([]string{key}); err != nil {
				mistakes = append(mistakes, fmt.Errorf("%s: %w", list.flag, err))
			}
		}
	}
	if api := options.EndpointsAPI; api != plan.UseEndpoints && api != plan.UseEndpointSlices {
		mistakes = append(mistakes, fmt.Errorf("--endpoints-api: %.40q is not known: give %s or %s", api, plan.UseEndpoints, plan.UseEndpointSlices))
	}
	if n := options.MaxDeletes; n < 0 {
		mistakes = append(mistakes, fmt.Errorf("--max-deletes: %d is negative: give a number, or 0 for no limit", n))
	}
	if n := options.Workers; n < 1 || n > maxWorkers {
		mistakes = append(mistakes, fmt.Errorf("--workers: %d is out of range: give a number from 1 to %d", n, maxWorkers))
	}
	return options, errors.Join(mistakes...)
}
