package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

const usage = `service-mirror makes the Services of other Kubernetes clusters reachable in this
one, through those clusters' gateways. For each Service that a remote cluster
exports it keeps a Service NAME-REMOTE in the same namespace.

  service-mirror --remote paris=paris.kubeconfig --gateway ingress/gateway

`

// describe is the help on every flag: the name and the kind of its value on one
// line, what it does below.
func (cfg *config) describe() string {
	var text strings.Builder
	cfg.flags.VisitAll(func(f *pflag.Flag) {
		kind, help := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if f.DefValue != "" && f.DefValue != "[]" && f.DefValue != "false" {
			help += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		fmt.Fprintf(&text, "  %s\n", strings.TrimSpace(name+" "+kind))
		line := "     "
		for word := range strings.FieldsSeq(help) {
			if len(line)+1+len(word) > 80 {
				fmt.Fprintln(&text, line)
				line = "     "
			}
			line += " " + word
		}
		fmt.Fprintln(&text, line)
	})
	return text.String()
}
