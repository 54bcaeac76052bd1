package plan

import (
	"slices"
	"strings"
	"testing"
)

// No reason is without a remedy, and none that is gone has one.
func TestEveryReasonHasARemedy(t *testing.T) {
	all := slices.Concat(Reasons, PublisherReasons, FailoverReasons)
	slices.Sort(all)
	all = slices.Compact(all)
	for _, reason := range all {
		if remedy := reason.Remedy(); remedy == "" || strings.HasSuffix(remedy, ".") || strings.Contains(remedy, "\n") {
			t.Errorf("%s: remedy %q", reason, remedy)
		}
	}
	if len(remedies) != len(all) {
		t.Errorf("there are %d remedies for %d reasons", len(remedies), len(all))
	}
}

// A remedy covers all causes of its reason: the message of a problem has just one.
func TestRemediesCoverEveryCause(t *testing.T) {
	for reason, causes := range map[Reason][]string{
		InvalidName:   {"Service", "template", "annotation"},
		NotRouted:     {"--name", "--host-template", "--caller-namespace", "service-mirror.io/hosts"},
		PortNotServed: {"appProtocol", "reserve", "annotation", "gateway"},
		NotAccepted:   {"Gateway", "Service"},
	} {
		for _, cause := range causes {
			if !strings.Contains(reason.Remedy(), cause) {
				t.Errorf("%s: the remedy %q is not about %s", reason, reason.Remedy(), cause)
			}
		}
	}
}
