package report

import (
	"strings"

	"k8s.io/apimachinery/pkg/util/diff"

	"service-mirror.io/service-mirror/remote/failure"
)

// Diff is what a write changes, for a dry run to print; before is nil of what is created. What a remote wrote is
// printable, and makes no line of its own.
func Diff(before, after any) string {
	text := strings.TrimSuffix(diff.Diff(before, after), "\n") + "\n"
	return failure.Lines(strings.ReplaceAll(text, "-null\n", "")) // that there was nothing before
}
