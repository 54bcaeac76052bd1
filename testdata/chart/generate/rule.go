package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// rulePath is the PrometheusRule of the kustomization in deploy/monitoring, which is made too: kustomize cannot put a
// file of rules into an object.
func rulePath(deploy string) string { return filepath.Join(deploy, "monitoring", "rule.yaml") }

func makeRule(deploy string) (string, error) {
	content, err := os.ReadFile(filepath.Join(deploy, alerts.from))
	if err != nil {
		return "", err
	}
	comment, rules, found := strings.Cut(string(content), "groups:\n")
	if !found {
		return "", fmt.Errorf("%s has no groups", alerts.from)
	}
	rules = regexp.MustCompile(`(?m)^(.)`).ReplaceAllString("groups:\n"+rules, "  $1")
	return "# Made from alerts.yaml by ../chart/build.sh: change that file.\n#\n" + comment + `apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: service-mirror
spec:
` + rules, nil
}
