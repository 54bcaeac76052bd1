// Command generate makes templates of the Helm chart in deploy/chart from the kustomize files beside it, so that
// neither is a copy of the other that somebody keeps: deploy/chart/build.sh runs it.
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
