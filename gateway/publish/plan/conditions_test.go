package plan

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestUnmet(t *testing.T) {
	condition := func(of, status string, generation int64) any {
		return map[string]any{"type": of, "status": status, "reason": "Because", "message": "of this", "observedGeneration": generation}
	}
	for name, test := range map[string]struct {
		conditions []any
		want       string
	}{
		"none":                        {nil, "Accepted is not true: not reported by any implementation yet"},
		"all met":                     {[]any{condition("Accepted", "True", 2), condition("Programmed", "True", 2)}, ""},
		"one is missing":              {[]any{condition("Accepted", "True", 2)}, "Programmed is not true: not reported"},
		"one is false":                {[]any{condition("Accepted", "True", 2), condition("Programmed", "False", 2)}, "Programmed is not true: Because: of this"},
		"one is unknown":              {[]any{condition("Accepted", "Unknown", 0)}, "Accepted is not true: Because: of this"},
		"without a generation":        {[]any{condition("Accepted", "True", 0), condition("Programmed", "True", 0)}, ""},
		"met by an older generation":  {[]any{condition("Accepted", "True", 1), condition("Programmed", "True", 2)}, "Accepted is not true: not reported"},
		"others do not count":         {[]any{condition("Accepted", "True", 2), condition("Programmed", "True", 2), condition("Other", "False", 2)}, ""},
		"something that is malformed": {[]any{"yes"}, "malformed status"},
	} {
		gw := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"generation": int64(2)}, "status": map[string]any{"conditions": test.conditions}}}
		if got := Unmet(gw, "Accepted", "Programmed"); !strings.HasPrefix(got, test.want) || (got == "") != (test.want == "") {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}
