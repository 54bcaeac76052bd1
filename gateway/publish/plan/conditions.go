package plan

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// Unmet is why an implementation has not met some of these conditions of an object, as it is now; empty: it has.
func Unmet(obj *unstructured.Unstructured, conditions ...string) string {
	var object struct {
		Status struct {
			Conditions []metav1.Condition `json:"conditions"`
		} `json:"status"`
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &object); err != nil {
		return "malformed status"
	}
	for _, wanted := range conditions {
		why := "not reported by any implementation yet"
		for _, c := range object.Status.Conditions {
			switch current := c.ObservedGeneration == 0 || c.ObservedGeneration == obj.GetGeneration(); {
			case c.Type != wanted || !current && c.Status == metav1.ConditionTrue:
			case c.Status == metav1.ConditionTrue:
				why = ""
			default:
				why = fmt.Sprintf("%.100s: %.300s", c.Reason, c.Message)
			}
		}
		if why != "" {
			return fmt.Sprintf("%s is not true: %s", wanted, why)
		}
	}
	return ""
}
