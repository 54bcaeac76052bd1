// Package logging has a log at warning level, which logr's loggers do not have: a warning that is logged as information
// is not found, and one that is logged as an error is not believed.
package logging

import (
	"bytes"
	"slices"
	"strings"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
)

// New is klog's logger, with which Warn logs at warning level.
func New() klog.Logger { return klog.New(&sink{LogSink: klog.NewKlogr().GetSink()}) }

// Warn logs a message at warning level. A logger that does not come from New logs it as information.
func Warn(logger klog.Logger, message string, keysAndValues ...any) {
	if s, ok := logger.GetSink().(*sink); ok {
		klog.WarningDepth(1+s.depth, s.line(message, keysAndValues))
		return
	}
	logger.WithCallDepth(1).Info(message, keysAndValues...)
}

// sink is klog's, with the values of its logger, which klog does not show.
type sink struct {
	klog.LogSink
	values []any
	depth  int
}

// Init does nothing: klog's sink was initialized when it was made.
func (s *sink) Init(klog.RuntimeInfo) {}

// WithValues is part of klog.LogSink.
func (s *sink) WithValues(keysAndValues ...any) klog.LogSink {
	return &sink{s.LogSink.WithValues(keysAndValues...), append(slices.Clip(s.values), keysAndValues...), s.depth}
}

// WithName is part of klog.LogSink.
func (s *sink) WithName(name string) klog.LogSink {
	return &sink{s.LogSink.WithName(name), s.values, s.depth}
}

// WithCallDepth has the log name a caller further up.
func (s *sink) WithCallDepth(depth int) klog.LogSink {
	inner := s.LogSink
	if deeper, ok := inner.(interface{ WithCallDepth(depth int) klog.LogSink }); ok {
		inner = deeper.WithCallDepth(depth)
	}
	return &sink{inner, s.values, s.depth + depth}
}

// line is a message with values as klog writes them, without the header, which is for information.
func (s *sink) line(message string, keysAndValues []any) string {
	var out bytes.Buffer
	textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(&out))).WithValues(s.values...).Info(message, keysAndValues...)
	_, line, _ := strings.Cut(out.String(), "] ")
	return strings.TrimSuffix(line, "\n")
}
