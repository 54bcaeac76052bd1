package remote

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
)

// logBuffer is a log that is read while it is written.
type logBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func (b *logBuffer) count(text string) int {
	var n int
	for line := range strings.Lines(b.String()) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

func (b *logBuffer) logger() klog.Logger {
	return textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(b)))
}

func TestStateLogsEachFailureOnce(t *testing.T) {
	const failing, recovered = `"Gateway of remote cluster is failing" part="a"`, `"Gateway of remote cluster recovered" part="a"`
	refused, gone := errors.New("connection refused"), errors.New("no route")
	for _, test := range []struct {
		name               string
		reports            []error
		failed, recoveries int
	}{
		{"healthy from the start", []error{nil, nil}, 0, 0},
		{"the same failure", []error{refused, refused, refused}, 1, 0},
		{"it differs only where it was tried", []error{fmt.Errorf("dial 192.0.2.1:1: %w", refused), fmt.Errorf("dial 192.0.2.1:2: %w", refused)}, 1, 0},
		{"another cause", []error{refused, gone}, 2, 0},
		{"to and fro", []error{refused, gone, refused}, 2, 0},
		{"it differs in what each attempt has of its own", []error{errors.New("stream ID 1; INTERNAL_ERROR"), errors.New("stream ID 3; INTERNAL_ERROR")}, 1, 0},
		{"over", []error{refused, nil, nil}, 1, 1},
		{"over, and again", []error{refused, nil, refused, nil}, 2, 1},
		{"over, and again and again", []error{refused, nil, refused, nil, refused, nil, refused}, 2, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log logBuffer
			s := state{logger: log.logger(), onProblem: func(Problem) {}}
			for _, err := range test.reports {
				s.report("a", err)
			}
			if failed, recoveries := log.count(failing), log.count(recovered); failed != test.failed || recoveries != test.recoveries {
				t.Errorf("%d failures and %d recoveries, want %d and %d:\n%s", failed, recoveries, test.failed, test.recoveries, &log)
			}
		})
	}
}

// A line names what its mirrors have to expect: contact is lost only where nothing of the remote is followed and nothing
// answers.
func TestStateNamesTheLoss(t *testing.T) {
	unanswered := &url.Error{Op: "Get", URL: "https://192.0.2.1:1234", Err: errors.New("connection refused")}
	for name, test := range map[string]struct {
		part    string
		err     error
		exports int
		want    string
	}{
		"no answer":                  {partExports, unanswered, 1, `"Lost contact with remote cluster; its mirrors are kept unchanged" part="watch of exported Services"`},
		"no answer of one namespace": {partExports + " in a", unanswered, 2, `"Cannot read from remote cluster; affected mirrors are kept unchanged" part="watch of exported Services in a"`},
		"forbidden":                  {partExports, errors.New("forbidden"), 1, `"Cannot read from remote cluster; affected mirrors are kept unchanged" part="watch of exported Services"`},
		"another cluster":            {partIdentity, errors.New("another cluster"), 1, `"Cannot read from remote cluster; affected mirrors are kept unchanged" part="identity"`},
		"which cluster it is":        {partIdentity, errors.New(undetectable + ": forbidden"), 1, `"Cannot verify the identity of remote cluster; its mirrors are still updated" part="identity"`},
		"a gateway":                  {"gateway a/b", unanswered, 1, `"Gateway of remote cluster is failing" part="gateway a/b"`},
	} {
		var log logBuffer
		s := state{logger: log.logger(), onProblem: func(Problem) {}, exports: test.exports}
		s.report(test.part, test.err)
		if log.count(test.want) != 1 {
			t.Errorf("%s: want %s, got %s", name, test.want, &log)
		}
	}
}

func TestStateKeepsPartsApart(t *testing.T) {
	var log logBuffer
	s := state{logger: log.logger(), onProblem: func(Problem) {}}
	failure := errors.New("forbidden")
	s.report("a", failure)
	s.report("b", failure)
	s.report("a", nil)
	s.report("b", failure)
	if log.count("is failing") != 2 || log.count(`recovered" part="a"`) != 1 || log.count(`recovered" part="b"`) != 0 {
		t.Error(&log)
	}
}

// A cause names the file that it is about, and is the same at each try.
func TestCauses(t *testing.T) {
	dial := fmt.Errorf("Get https://192.0.2.1:1234: %w", errors.New("connection refused"))
	for _, test := range []struct {
		part  string
		err   error
		cause string
		kind  string
	}{
		{partExports + " in namespace a", dial, "connection refused", ExportsProblem},
		{partIdentity, dial, "connection refused", IdentityProblem},
		{"gateway a/b", errors.Join(errors.New("no address"), errors.New("no port")), "no address; no port", GatewayProblem},
		{partKubeconfig, fmt.Errorf("open /a/token: %w", errors.New("no such file")), "open /a/token: no such file", KubeconfigProblem},
		{partExports, errors.New("exec: executable x not found\n\nIt looks like a hint"), "exec: executable x not found", ExportsProblem},
	} {
		var got Problem
		s := state{logger: new(logBuffer).logger(), onProblem: func(p Problem) { got = p }}
		s.report(test.part, test.err)
		problems, _, _ := s.now()
		if want := (Problem{test.part, test.cause}); got != want || len(problems) != 1 || problems[0] != want || got.Kind() != test.kind {
			t.Errorf("%v: got %v of kind %s, and problems %v; want %v of kind %s", test.err, got, got.Kind(), problems, want, test.kind)
		}
	}
}

// Problems are passed on without a lock, in order, those that come meanwhile, too.
func TestStatePassesProblemsOnWithoutALock(t *testing.T) {
	var s state
	var got []Problem
	s = state{logger: new(logBuffer).logger(), onProblem: func(p Problem) {
		if problems, _, _ := s.now(); len(problems) == 0 && p.Cause != "" {
			t.Errorf("%v is passed on before it is known", p)
		}
		got = append(got, p)
		if p == (Problem{"a", "one"}) { // as another part that fails at this moment
			s.report("b", errors.New("two"))
			s.report("a", nil)
		}
	}}
	s.report("a", errors.New("one"))
	if want := []Problem{{"a", "one"}, {"b", "two"}, {"a", ""}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Reports from many goroutines arrive one at a time, and the last one is the truth.
func TestStateKeepsTheOrderOfReports(t *testing.T) {
	var got []Problem
	s := state{logger: new(logBuffer).logger(), onProblem: func(p Problem) { got = append(got, p) }}
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for i := range 100 {
				s.report("a", []error{nil, fmt.Errorf("cause %d of %d", i, n)}[i%2])
			}
		})
	}
	wg.Wait()
	problems, _, _ := s.now()
	last := got[len(got)-1]
	if len(problems) != len(strings.Fields(last.Cause))/4 || len(problems) == 1 && problems[0] != last {
		t.Errorf("the last one passed on is %v, and the problems are %v", last, problems)
	}
	for i := 1; i < len(got); i++ {
		if got[i] == got[i-1] {
			t.Errorf("%v is passed on twice", got[i])
		}
	}
}

// A remote is down when nothing of it is followed.
func TestStateOfManyNamespaces(t *testing.T) {
	s := state{logger: new(logBuffer).logger(), onProblem: func(Problem) {}, exports: 2}
	failure := errors.New("forbidden")
	for _, step := range []struct {
		part string
		err  error
		down bool
	}{
		{exportsPart("a"), failure, false},
		{"gateway x/y", failure, false},
		{exportsPart("b"), failure, true},
		{exportsPart("a"), nil, false},
		{partIdentity, failure, true},
		{partIdentity, nil, false},
		{partIdentity, errors.New(undetectable + ": forbidden"), false},
		{partIdentity, nil, false},
		{partKubeconfig, failure, true},
	} {
		s.report(step.part, step.err)
		if _, down, _ := s.now(); down != step.down {
			t.Errorf("after %s: %v: down is %v", step.part, step.err, down)
		}
	}
}
