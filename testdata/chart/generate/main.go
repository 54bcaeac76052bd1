// Command generate makes templates of the Helm chart in deploy/chart from the kustomize files beside it, and the
// PrometheusRule in deploy/monitoring from the alerts, so that nobody has to keep copies up to date:
// deploy/chart/build.sh runs it.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	deploy := flag.String("deploy", "deploy", "`directory` of the kustomize files and of the chart")
	flag.Parse()
	if err := write(*deploy); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// write makes every template, and writes none if one cannot be made.
func write(deploy string) error {
	made := map[string]string{}
	for _, t := range templates {
		text, err := t.make(deploy)
		if err != nil {
			return err
		}
		made[t.path(deploy)] = text
	}
	rule, err := makeRule(deploy)
	if err != nil {
		return err
	}
	made[rulePath(deploy)] = rule
	for path, text := range made {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
