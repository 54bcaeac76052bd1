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
