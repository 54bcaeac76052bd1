package mirror

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// Flags are the flags about mirrors, as they are typed.
type Flags struct {
	options  Options
	template string
	obey     bool
}

// maxWorkers bounds the requests that are under way at once.
const maxWorkers = 1000

// Add adds the flags.
func (raw *Flags) Add(f *pflag.FlagSet) {
	f.StringSliceVar(&raw.options.CopyLabels, "copy-labels", nil, "label `KEY,...` copied from exported Services to their mirrors")
	f.StringSliceVar(&raw.options.CopyAnnotations, "copy-annotations", nil, "annotation `KEY,...` copied from exported Services to their mirrors")
	f.StringVar(&raw.template, "name-template", plan.DefaultTemplate, "`TEMPLATE` of mirrors' names: {service} is the exported Service's name, {cluster} the remote's name, {namespace} the exported Service's namespace; name= in --remote sets it for one remote")
	f.BoolVar(&raw.obey, "allow-names", false, "let exported Services choose their mirrors' names with the annotation "+plan.NameAnnotation)
	f.StringVar(&raw.options.ClusterName, "cluster-name", "", "`NAME` of the local cluster, on the status page, in logs and in Events; exported Services with the annotation "+plan.ExportToAnnotation+" are mirrored only if they list it")
	f.BoolVar(&raw.options.IncludeSystem, "include-system", false, "also mirror exported Services in kube-system")
	f.BoolVar(&raw.options.CreateNamespaces, "create-namespaces", false, "create missing namespaces of mirrors instead of waiting for them")
	f.StringVar((*string)(&raw.options.EndpointsAPI), "endpoints-api", string(plan.UseEndpoints), "`KIND` of object with a mirror's addresses: endpoints or endpointslices; it can be changed at any time without losing endpoints")
	f.StringVar((*string)(&raw.options.Merge), "merge", string(plan.MergeOff), "merge exports of several remotes with the same mirror name into one mirror. `MODE` is all (every remote serves), first (the first healthy remote serves, in the order of --remote) or off; requires --endpoints-api=endpointslices and a --name-template without {cluster}")
	f.IntVar(&raw.options.MaxDeletes, "max-deletes", 0, "maximum `NUMBER` of mirrors of one remote that are deleted within a minute because they are no longer exported; further deletions wait for the annotation "+plan.ConfirmAnnotation+"=true (0: no limit)")
	f.DurationVar(&raw.options.FailoverAfter, "failover-after", time.Second, "`TIME` without a ready local endpoint after which a Service fails over to a remote")
	f.DurationVar(&raw.options.FailbackAfter, "failback-after", 10*time.Second, "`TIME` with a ready local endpoint after which the Service fails back; until then both serve")
	f.IntVar(&raw.options.Workers, "workers", 32, fmt.Sprintf("`NUMBER` of mirrors synced in parallel, 1 to %d", maxWorkers))
}

// Options are what the flags say of the mirrors of these remotes; the error lists what is wrong with them, by flag.
func (raw *Flags) Options(remotes []remote.Spec) (Options, error) {
	options := raw.options
	options.Names = raw.Names(remotes)
	if raw.template != plan.DefaultTemplate {
		options.Template = raw.template
	}
	mistakes := []error{raw.validateTemplates(remotes)}
	if name := options.ClusterName; name != "" && len(validation.IsDNS1123Label(name)) > 0 {
		mistakes = append(mistakes, fmt.Errorf("--cluster-name: %.70q is not a DNS label: set one such as london", name))
	}
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
		mistakes = append(mistakes, fmt.Errorf("--endpoints-api: unknown kind %.40q: set %s or %s", api, plan.UseEndpoints, plan.UseEndpointSlices))
	}
	for _, spec := range remotes {
		options.Order = append(options.Order, spec.Name)
	}
	mistakes = append(mistakes, raw.validateMerge(remotes))
	if n := options.MaxDeletes; n < 0 {
		mistakes = append(mistakes, fmt.Errorf("--max-deletes: %d is negative: set a number, or 0 for no limit", n))
	}
	for _, one := range []struct {
		flag string
		time time.Duration
	}{{"--failover-after", options.FailoverAfter}, {"--failback-after", options.FailbackAfter}} {
		if one.time < 0 {
			mistakes = append(mistakes, fmt.Errorf("%s: %v is negative: set a time, or 0", one.flag, one.time))
		}
	}
	if n := options.Workers; n < 1 || n > maxWorkers {
		mistakes = append(mistakes, fmt.Errorf("--workers: %d is out of range: set a number from 1 to %d", n, maxWorkers))
	}
	return options, errors.Join(mistakes...)
}

// validateMerge refuses to merge mirrors that have no name, or no objects, in common.
func (raw *Flags) validateMerge(remotes []remote.Spec) error {
	switch raw.options.Merge {
	case "", plan.MergeOff:
		return nil
	case plan.MergeAll, plan.MergeFirst:
	default:
		return fmt.Errorf("--merge: unknown mode %.40q: set %s, %s or %s", raw.options.Merge, plan.MergeAll, plan.MergeFirst, plan.MergeOff)
	}
	var lacking []string
	if raw.options.EndpointsAPI != plan.UseEndpointSlices {
		lacking = append(lacking, "--endpoints-api="+string(plan.UseEndpointSlices))
	}
	templates := []string{raw.template}
	if len(remotes) > 0 {
		templates = nil
	}
	for _, spec := range remotes {
		templates = append(templates, cmp.Or(spec.Template, raw.template))
	}
	if slices.ContainsFunc(templates, plan.NamesCluster) {
		lacking = append(lacking, "a --name-template, and name= in --remote, without {cluster}, such as {service}")
	}
	if len(lacking) == 0 {
		return nil
	}
	return fmt.Errorf("--merge=%s requires %s", raw.options.Merge, strings.Join(lacking, " and "))
}

// ValidateRemote finds what is wrong with what one remote that comes later says of its mirrors.
func (raw *Flags) ValidateRemote(spec remote.Spec) error {
	template := cmp.Or(spec.Template, raw.template)
	if err := plan.ValidateTemplate(template); err != nil {
		return fmt.Errorf("name= %w", err)
	}
	if (raw.options.Merge == plan.MergeAll || raw.options.Merge == plan.MergeFirst) && plan.NamesCluster(template) {
		return fmt.Errorf("name=%.70s contains {cluster}, which --merge=%s does not allow: use {service}", template, raw.options.Merge)
	}
	return nil
}

// validateTemplates finds what is wrong with how these remotes' mirrors are called.
func (raw *Flags) validateTemplates(remotes []remote.Spec) error {
	var mistakes []error
	if err := plan.ValidateTemplate(raw.template); err != nil {
		mistakes = append(mistakes, fmt.Errorf("--name-template: %w", err))
	}
	for _, spec := range remotes {
		if spec.Template != "" {
			if err := plan.ValidateTemplate(spec.Template); err != nil {
				mistakes = append(mistakes, fmt.Errorf("--remote %s: name= %w", spec.Name, err))
			}
		}
	}
	return errors.Join(mistakes...)
}

// Names are the rules for the names of these remotes' mirrors.
func (raw *Flags) Names(remotes []remote.Spec) plan.Names {
	var names plan.Names
	for _, spec := range remotes {
		template := cmp.Or(spec.Template, raw.template)
		if template == plan.DefaultTemplate && spec.Local == nil && !raw.obey {
			continue
		}
		if names == nil {
			names = plan.Names{}
		}
		names[spec.Name] = plan.Naming{Cluster: spec.Name, Template: template, Namespaces: spec.Local, ObeyNames: raw.obey}
	}
	return names
}
