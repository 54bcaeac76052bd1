package check

import (
	"encoding/json"
	"fmt"
	"io"

	"service-mirror.io/service-mirror/mirror/plan"
)

// Level is how bad a finding is.
type Level string

// The levels.
const (
	LevelOK      Level = "ok"
	LevelWarning Level = "warning" // something will not work as expected
	LevelError   Level = "error"   // it must be fixed
)

// marks begin the lines of findings.
var marks = map[Level]string{LevelOK: "+", LevelWarning: "!", LevelError: "-"}

// Finding is one thing that was checked.
type Finding struct {
	Level    Level       `json:"level"`
	Message  string      `json:"message"`
	Reason   plan.Reason `json:"reason,omitempty"`   // of exported Services that share a problem
	Services []string    `json:"services,omitempty"` // all of those
}

// Cluster is what was found about one cluster.
type Cluster struct {
	Name     string    `json:"name"`
	Findings []Finding `json:"findings"`
}

// Result is what a check found.
type Result struct {
	Clusters []Cluster `json:"clusters"`
	Errors   int       `json:"errors"`
	Warnings int       `json:"warnings"`
}

// ResultOf is what reports say.
func ResultOf(reports ...*Report) Result {
	result := Result{Clusters: []Cluster{}}
	for _, r := range reports {
		result.Clusters = append(result.Clusters, Cluster{Name: r.cluster, Findings: append([]Finding{}, r.findings...)})
		for _, f := range r.findings {
			switch f.Level {
			case LevelError:
				result.Errors++
			case LevelWarning:
				result.Warnings++
			}
		}
	}
	return result
}

// Err is nil if the check has passed: warnings are failures only where it is strict.
func (r Result) Err(strict bool) error {
	if r.Errors == 0 && (r.Warnings == 0 || !strict) {
		return nil
	}
	return fmt.Errorf("check failed: %s, %s", number(r.Errors, "error"), number(r.Warnings, "warning"))
}

// Missing is why the check has not passed, with the first finding that must be fixed; empty: it has passed.
func (r Result) Missing(strict bool) string {
	err := r.Err(strict)
	if err == nil {
		return ""
	}
	for _, level := range []Level{LevelError, LevelWarning} {
		for _, c := range r.Clusters {
			for _, f := range c.Findings {
				if f.Level == level {
					return err.Error() + ": " + c.Name + ": " + f.Message
				}
			}
		}
	}
	return err.Error()
}

// WriteJSON prints it for programs.
func (r Result) WriteJSON(out io.Writer) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

func number(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
