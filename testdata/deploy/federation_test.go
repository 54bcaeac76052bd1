package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"service-mirror.io/service-mirror/testdata/harness"
)

// start runs a program until the test is over, and returns the address that it listens on.
func (e *env) start(ready string, command func(address string) *exec.Cmd) (address string) {
	e.Helper()
	address, err := harness.FreeAddress()
	e.must(err)
	process, err := harness.Start(command(address))
	e.must(err)
	e.Cleanup(func() {
		if err := process.Stop(20 * time.Second); err != nil {
			e.Errorf("%v was stopped: %v", process.Args, err)
		}
		if process.Log.Count("DATA RACE") > 0 || e.Failed() {
			e.Errorf("log of %v:\n%s", process.Args, process.Log)
		}
	})
	e.soon(filepath.Base(process.Path)+" is ready", func() error {
		_, err := harness.GetOK(e.ctx, address, ready)
		return errors.Join(process.Running(), err)
	})
	return address
}

// runDaemon runs the program beside a cluster, as its administrator.
func (e *env) runDaemon(c *cluster, remotes ...string) (address string) {
	e.Helper()
	return e.start("/readyz", func(address string) *exec.Cmd {
		args := []string{"--kubeconfig", c.Kubeconfig, "--gateway=ingress/gateway", "--listen", address}
		for _, remote := range remotes {
			args = append(args, "--remote", remote)
		}
		return exec.Command(harness.Program("service-mirror-race"), args...)
	})
}

// runPrometheus runs a server with a configuration, in which RULES is a file with these rules.
func (e *env) runPrometheus(config, rules string) (address string) {
	e.Helper()
	dir := e.TempDir()
	path := filepath.Join(dir, "prometheus.yaml")
	e.must(os.WriteFile(path, []byte(strings.ReplaceAll(config, "RULES", filepath.Join(dir, "rules.yaml"))), 0o644))
	e.must(os.WriteFile(filepath.Join(dir, "rules.yaml"), []byte(rules), 0o644))
	return e.start("/-/ready", func(address string) *exec.Cmd {
		return exec.Command(harness.Program("prometheus"), "--config.file", path, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", address)
	})
}

// A server of each cluster, with the external label that says whose metrics it has.
const perCluster = `
global: {scrape_interval: 1s, external_labels: {cluster: %s}}
scrape_configs:
- job_name: service-mirror
  static_configs: [{targets: ["%s"]}]
`

// The one that has the metrics of all, with the labels that the others gave them.
const ofAll = `
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [RULES]
scrape_configs:
- job_name: federate
  honor_labels: true
  metrics_path: /federate
  params: {"match[]": ['{job="service-mirror"}']}
  static_configs: [{targets: ["%s", "%s"]}]
`

// Two clusters, each with a Prometheus server of its own, and a third server that has the metrics of both: the
// remotes of each stay apart, and the rules give one alert for each that is down.
func TestTwoClustersInOneView(t *testing.T) {
	e := newEnv(t)
	missing := t.TempDir()
	inLondon := e.runDaemon(london, "paris="+missing+"/paris", "rome="+missing+"/rome")
	inBerlin := e.runDaemon(paris, "london="+london.Kubeconfig, "rome="+missing+"/rome")
	e.noClusterLabel(inLondon)
	e.noClusterLabel(inBerlin)

	shippedRules, err := os.ReadFile(shipped("monitoring/alerts.yaml"))
	e.must(err)
	atOnce := regexp.MustCompile(`(?m)^    for: .*\n`).ReplaceAllString(string(shippedRules), "")
	view := e.runPrometheus(fmt.Sprintf(ofAll,
		e.runPrometheus(fmt.Sprintf(perCluster, "london", inLondon), ""),
		e.runPrometheus(fmt.Sprintf(perCluster, "berlin", inBerlin), "")), atOnce)

	e.soon("each remote of each cluster has a series", func() error {
		var answer struct {
			Data struct {
				Result []struct {
					Metric map[string]string
					Value  [2]any // the time, and the value
				}
			}
		}
		if err := e.ask(view, "/api/v1/query?query="+url.QueryEscape("service_mirror_remote_up"), &answer); err != nil {
			return err
		}
		var got []string
		for _, series := range answer.Data.Result {
			got = append(got, fmt.Sprintf("%s's %s: %v", series.Metric["cluster"], series.Metric["remote"], series.Value[1]))
		}
		return same(got, "berlin's london: 1", "berlin's rome: 0", "london's paris: 0", "london's rome: 0")
	})
	e.soon("an alert for each remote that is down", func() error {
		var answer struct {
			Data struct {
				Alerts []struct {
					Labels map[string]string
					State  string
				}
			}
		}
		if err := e.ask(view, "/api/v1/alerts", &answer); err != nil {
			return err
		}
		var got []string
		for _, alert := range answer.Data.Alerts {
			text := alert.State
			for _, label := range slices.Sorted(maps.Keys(alert.Labels)) {
				text += " " + label + "=" + alert.Labels[label]
			}
			got = append(got, text)
		}
		const down = "firing alertname=ServiceMirrorRemoteDown cluster=%s remote=%s severity=warning"
		return same(got, fmt.Sprintf(down, "berlin", "rome"), fmt.Sprintf(down, "london", "paris"), fmt.Sprintf(down, "london", "rome"))
	})
}

// noClusterLabel checks that no series of the daemon has the label that is a server's: Thanos replaces its value.
func (e *env) noClusterLabel(daemon string) {
	e.Helper()
	metrics, err := harness.GetOK(e.ctx, daemon, "/metrics")
	e.must(err)
	if !strings.Contains(metrics, `{remote="rome"}`) {
		e.Errorf("no series has the label remote:\n%s", metrics)
	}
	for line := range strings.Lines(metrics) {
		if strings.Contains(line, `{cluster="`) || strings.Contains(line, `,cluster="`) {
			e.Errorf("this series has the label cluster: %s", line)
		}
	}
}

// ask reads an answer of Prometheus' API.
func (e *env) ask(address, path string, into any) error {
	ctx, cancel := context.WithTimeout(e.ctx, 5*time.Second)
	defer cancel()
	body, err := harness.GetOK(ctx, address, path)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(body), into)
}

func same(got []string, want ...string) error {
	if slices.Sort(got); !slices.Equal(got, want) {
		return fmt.Errorf("got %q, want %q", got, want)
	}
	return nil
}
