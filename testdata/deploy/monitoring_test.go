package deploy

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"service-mirror.io/service-mirror/testdata/harness"
)

// The rules are rules, and go off when they should and only then.
func TestAlerts(t *testing.T) {
	e := newEnv(t)
	for _, args := range [][]string{{"check", "rules", shipped("monitoring/alerts.yaml")}, {"test", "rules", "alerts.yaml"}} {
		_, err := run(e.ctx, harness.Program("promtool"), args...)
		e.must(err)
	}
	rules := e.ruleExpressions()
	tests, err := os.ReadFile("alerts.yaml")
	e.must(err)
	for name := range rules {
		if strings.Count(string(tests), "alertname: "+name) < 2 {
			t.Errorf("%s is not tested both ways", name)
		}
	}
}

// ruleExpressions are those of the alerts, by name.
func (e *env) ruleExpressions() map[string]string {
	e.Helper()
	content, err := os.ReadFile(shipped("monitoring/alerts.yaml"))
	e.must(err)
	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	e.must(yaml.Unmarshal(content, &file))
	all := map[string]string{}
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			all[rule.Alert] = rule.Expr
		}
	}
	if len(all) == 0 {
		e.Fatal("there are no rules")
	}
	return all
}

// panelExpressions are those of the dashboard, by panel.
func (e *env) panelExpressions() map[string]string {
	e.Helper()
	content, err := os.ReadFile(shipped("monitoring/dashboard.json"))
	e.must(err)
	var dashboard struct {
		Panels []struct {
			ID      int
			Title   string
			Targets []struct{ Expr string }
		}
	}
	e.must(json.Unmarshal(content, &dashboard))
	all, ids := map[string]string{}, map[int]bool{}
	for _, panel := range dashboard.Panels {
		if len(panel.Targets) == 0 || ids[panel.ID] || panel.Title == "" {
			e.Errorf("panel %d %q is empty, without a title, or has another's number", panel.ID, panel.Title)
		}
		ids[panel.ID] = true
		for i, target := range panel.Targets {
			// What Grafana puts in.
			expr := strings.NewReplacer("$__rate_interval", "5m", "$remote", ".*").Replace(target.Expr)
			all[fmt.Sprintf("%d:%d", panel.ID, i)] = expr
		}
	}
	if len(all) == 0 {
		e.Fatal("there are no panels")
	}
	return all
}

// Every expression of the dashboard is one, and every metric that is asked for anywhere is one
// that the daemon has from its start.
func TestMetricsExist(t *testing.T) {
	e := newEnv(t)
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	panels := e.panelExpressions()
	var rules []rule
	for _, expr := range panels {
		rules = append(rules, rule{fmt.Sprintf("panel:%d", len(rules)), expr})
	}
	file, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	e.must(err)
	path := filepath.Join(t.TempDir(), "rules.yaml")
	e.must(os.WriteFile(path, file, 0o644))
	_, err = run(e.ctx, harness.Program("promtool"), "check", "rules", path)
	e.must(err)

	e.namespace("shop", london, paris)
	e.gateway("203.0.113.1")
	e.apply(london, shipped("local"))
	e.link("gateway=ingress/gateway")
	p := e.runPod()
	var metrics string
	e.soon("the gateway is known", func() error {
		if metrics, err = p.get("/metrics"); err == nil && !strings.Contains(metrics, `gateway="ingress/gateway"`) {
			err = fmt.Errorf("there is nothing about it")
		}
		return err
	})
	// Those of the process itself need a /proc, which there is none of here.
	name := regexp.MustCompile(`\bservice_mirror_[a-z_]+\b`)
	seen := map[string]bool{}
	maps.Copy(panels, e.ruleExpressions())
	for where, expr := range panels {
		for _, metric := range name.FindAllString(expr, -1) {
			seen[metric] = true
			if !strings.Contains(metrics, "\n"+metric+"{") && !strings.Contains(metrics, "\n"+metric+" ") {
				t.Errorf("%s asks for %s, which the daemon has not", where, metric)
			}
		}
	}
	// And the other way round.
	for line := range strings.Lines(metrics) {
		if metric, ok := strings.CutPrefix(line, "# TYPE service_mirror_"); ok {
			metric, kind, _ := strings.Cut(strings.TrimSpace(metric), " ")
			if metric = "service_mirror_" + metric; kind == "histogram" {
				metric += "_bucket"
			}
			if !seen[metric] {
				t.Errorf("nobody asks for %s", metric)
			}
		}
	}
}

// The scripts have nothing that shellcheck knows to be wrong.
func TestScripts(t *testing.T) {
	e := newEnv(t)
	_, err := run(e.ctx, "shellcheck", shipped("image/build.sh"), "setup.sh")
	e.must(err)
}
