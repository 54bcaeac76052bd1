package logging

import (
	"bytes"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
)

// logged is what klog prints meanwhile.
func logged(t *testing.T, do func()) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	before := os.Stderr
	os.Stderr = w
	do()
	klog.Flush()
	os.Stderr = before
	w.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestWarn(t *testing.T) {
	helper := func(logger klog.Logger) { Warn(logger.WithCallDepth(1), "A warning", "a", 1) }
	const header = `\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ logging_test\.go:\d+\] `
	for name, test := range map[string]struct {
		log  func(klog.Logger)
		want string
	}{
		"a warning":      {func(l klog.Logger) { Warn(l, "A warning", "a", 1, "err", errors.New("no")) }, `W` + header + `"A warning" a=1 err="no"`},
		"no values":      {func(l klog.Logger) { Warn(l, "A warning") }, `W` + header + `"A warning"`},
		"a logger's own": {func(l klog.Logger) { Warn(l.WithValues("x", "y"), "A warning", "a", 1) }, `W` + header + `"A warning" x="y" a=1`},
		"a helper":       {helper, `W` + header + `"A warning" a=1`},
		"not a format":   {func(l klog.Logger) { Warn(l, "100% sure", "a", "%s] b") }, `W` + header + `"100% sure" a="%s] b"`},
		"a line break":   {func(l klog.Logger) { Warn(l, "A warning\nE1127", "a", 1) }, `W` + header + `"A warning\\nE1127" a=1`},
		"information":    {func(l klog.Logger) { l.WithValues("x", "y").Info("Some news", "a", 1) }, `I` + header + `"Some news" x="y" a=1`},
		"an error":       {func(l klog.Logger) { l.Error(errors.New("no"), "A failure", "a", 1) }, `E` + header + `"A failure" err="no" a=1`},
		"debugging":      {func(l klog.Logger) { l.V(2).Info("Some detail") }, ``},
	} {
		t.Run(name, func(t *testing.T) {
			got := strings.TrimSuffix(logged(t, func() { test.log(New()) }), "\n")
			if !regexp.MustCompile(`^` + test.want + `$`).MatchString(got) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestWarnToAnotherLogger(t *testing.T) {
	var out bytes.Buffer
	Warn(textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(&out))), "A warning", "a", 1)
	if got := out.String(); !strings.Contains(got, `logging_test.go`) || !strings.HasSuffix(got, "] \"A warning\" a=1\n") {
		t.Errorf("got %q", got)
	}
	Warn(klog.Logger{}, "A warning") // nobody reads it
}
