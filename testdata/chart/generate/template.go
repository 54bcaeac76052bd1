package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// template is one of the chart's that is made from a file.
type template struct {
	from string // below deploy/
	to   string // below deploy/chart/templates/
	when string // the condition on which it has anything
	// indent is put before each line, and before the edits.
	indent string
	edits  []edit // of this file, after those of all
}

// edit replaces a text, which must be there: a file that has changed must not lose what makes it a template.
type edit struct{ old, new string }

func (t template) path(deploy string) string {
	return filepath.Join(deploy, "chart", "templates", t.to)
}

func (t template) make(deploy string) (string, error) {
	content, err := os.ReadFile(filepath.Join(deploy, t.from))
	if err != nil {
		return "", err
	}
	text := string(content)
	if t.indent != "" {
		text = regexp.MustCompile(`(?m)^(.)`).ReplaceAllString(text, t.indent+"$1")
	}
	text = names.Replace(text)
	for _, p := range patterns {
		text = p.find.ReplaceAllString(text, p.with)
	}
	for _, e := range t.edits {
		if !strings.Contains(text, e.old) {
			return "", fmt.Errorf("%s does not have what the chart replaces: fix %s in testdata/chart/generate/templates.go:\n%s", t.from, t.to, e.old)
		}
		text = strings.ReplaceAll(text, e.old, e.new)
	}
	return fmt.Sprintf("{{- /* Made from deploy/%s by deploy/chart/build.sh: change that file. */}}\n{{- if %s }}\n%s{{- end }}\n", t.from, t.when, text), nil
}

const (
	namespace = `{{ .Release.Namespace }}`
	daemon    = `{{ include "service-mirror.daemon.account" . }}`
	publisher = `{{ include "service-mirror.publisher.account" . }}`
	reader    = `{{ include "service-mirror.reader.account" . }}`
)

// names are the namespace and the ServiceAccounts, wherever a file of any kind has them. Objects' other names are the
// same in each release: two daemons in one cluster would do everything twice, so Helm refuses the second one.
var names = strings.NewReplacer(accounts()...)

func accounts() []string {
	pairs := []string{"{{", `{{ "{{" }}`}
	// The longer ones first.
	for _, account := range []struct{ is, becomes string }{
		{"service-mirror-publish", publisher}, {"service-mirror-reader", reader}, {"service-mirror", daemon},
	} {
		for _, context := range []string{
			"{kind: ServiceAccount, namespace: %s, name: %s}",
			"serviceaccount:%s:%s'",
			"ServiceAccount %s/%s:",
			"ServiceAccount %s/%s,",
			"ServiceAccount %s/%s ",
			"paramRef:\n    namespace: %s\n    name: %s\n",
			"kind: ServiceAccount\nmetadata:\n  namespace: %s\n  name: %s\n",
		} {
			pairs = append(pairs, fmt.Sprintf(context, "service-mirror", account.is), fmt.Sprintf(context, namespace, account.becomes))
		}
		for _, context := range []string{
			"kind: ServiceAccount\nmetadata:\n  name: %s\n",
			"kubernetes.io/service-account.name: %s\n",
			"serviceAccountName: %s\n",
		} {
			pairs = append(pairs, fmt.Sprintf(context, account.is), fmt.Sprintf(context, account.becomes))
		}
	}
	return pairs
}

// patterns are where the namespace is without an account.
var patterns = []struct {
	find *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`(\bnamespace: )service-mirror\b( *\n|,|})`), "${1}" + namespace + "${2}"},
	{regexp.MustCompile(`(\bnamespace\)? == ')service-mirror'`), "${1}" + namespace + "'"},
	{regexp.MustCompile(`\bLease service-mirror/`), "Lease " + namespace + "/"},
}
