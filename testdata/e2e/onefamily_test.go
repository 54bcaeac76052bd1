package e2e

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// problemsOf are a mirror's state and its problems, as the status page has them.
func (d *daemon) problemsOf(mirror string) (state string, reasons, messages []string, err error) {
	d.t.Helper()
	p, err := d.page()
	if err != nil {
		return "", nil, nil, err
	}
	for _, row := range p.Mirrors {
		if row.Name != mirror {
			continue
		}
		for _, problem := range row.Problems {
			reasons, messages = append(reasons, problem.Reason), append(messages, problem.Message)
		}
		return row.State, reasons, messages, nil
	}
	return "", nil, nil, fmt.Errorf("mirror %s is not on the page", mirror)
}

// incomplete checks that the page, a metric and one Event, seen once, give one reason for
// which a mirror has no endpoints; the message has all of the words.
func (r *remote) incomplete(d *daemon, name string, words ...string) func() error {
	return func() error {
		state, reasons, messages, err := d.problemsOf(r.mirror(name))
		if err != nil {
			return err
		}
		if state != "incomplete" || len(reasons) != 1 {
			return fmt.Errorf("the page says that %s is %s because of %v %q, want it incomplete with one reason", r.mirror(name), state, reasons, messages)
		}
		for _, word := range words {
			if !strings.Contains(messages[0], word) {
				return fmt.Errorf("the page says of %s %q, want %q in it", r.mirror(name), messages[0], word)
			}
		}
		if err := d.measures(map[string]float64{r.problem(reasons[0]): 1, r.state("incomplete"): 1, r.state("mirrored"): 0})(); err != nil {
			return err
		}
		return r.env.hasEvent(r.env.id, "Service/"+r.mirror(name), reasons[0], words...)()
	}
}

// A gateway that only has addresses of a family that the local cluster lacks.
func TestGatewayOfAnotherFamily(t *testing.T) {
	t.Parallel()
	for kind, args := range map[string][]string{"endpoints": nil, "endpointslices": {useSlices}} {
		t.Run(kind, func(t *testing.T) {
			e := newSlicesEnv(t)
			r := e.remote(paris)
			r.gateway("2001:db8::1", "2001:db8::2")
			r.export("bar")
			d := e.daemon([]*remote{r}, append(args, listening...)...)
			without := []func() error{r.hasService("bar"), r.slicesLead("bar"), r.incomplete(d, "bar", "IPv6")}
			e.soon("a mirror with a reason", without...)
			e.change(paris, "bar", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 })
			e.stays("one Event", without...)
			r.gateway("2001:db8::1", "203.0.113.1")
			e.soon("an address of the right family", r.slicesLead("bar", to("http:8080", "203.0.113.1")...),
				d.measures(map[string]float64{r.state("incomplete"): 0, r.state("mirrored"): 1}), func() error {
					if _, reasons, messages, err := d.problemsOf(r.mirror("bar")); err != nil || len(reasons) > 0 {
						return fmt.Errorf("problems %v %q, %v: want none", reasons, messages, err)
					}
					return nil
				})
		})
	}
}
