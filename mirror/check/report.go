package check

import (
	"fmt"
	"io"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
	"service-mirror.io/service-mirror/remote/failure"
)

// Report is the lines about one cluster.
type Report struct {
	cluster string
	out     io.Writer
	client  remote.Client // once it is reached
	failed  bool
	missing bool // a permission, which was reported
	// exported is what a remote exports, where what becomes of that depends on the other remotes.
	exported []plan.Candidate
	// findings are what the lines say.
	findings []Finding
}

// NewReport makes a report about a cluster.
func NewReport(cluster string, out io.Writer) *Report { return &Report{cluster: cluster, out: out} }

// Client is for the cluster, once it is reached.
func (r *Report) Client() remote.Client { return r.client }

// Failed tells whether something must be fixed.
func (r *Report) Failed() bool { return r.failed }

// add notes a finding and prints its line, whatever is in the texts of a remote.
func (r *Report) add(f Finding) {
	f.Message = failure.Line(f.Message)
	r.failed = r.failed || f.Level == LevelError
	r.findings = append(r.findings, f)
	fmt.Fprintf(r.out, "%s %s: %s\n", marks[f.Level], failure.Line(r.cluster), f.Message)
}

// Missing tells whether a permission is missing, which was reported.
func (r *Report) Missing() bool { return r.missing }

// OK says that something is in order.
func (r *Report) OK(format string, args ...any) {
	r.add(Finding{Level: LevelOK, Message: fmt.Sprintf(format, args...)})
}

// Warn says that something will not work as expected.
func (r *Report) Warn(format string, args ...any) {
	r.add(Finding{Level: LevelWarning, Message: fmt.Sprintf(format, args...)})
}

// Fail says that something must be fixed.
func (r *Report) Fail(format string, args ...any) {
	r.add(Finding{Level: LevelError, Message: fmt.Sprintf(format, args...)})
}

// Unread reports what could not be read, unless the permission is missing that was reported.
func (r *Report) Unread(what string, err error) {
	if !r.missing || !apierrors.IsForbidden(err) {
		r.Fail("%s cannot be read: %s", what, remote.Cause(err))
	}
}
