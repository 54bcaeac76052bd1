package quickstart

import (
	"os"
	"strings"
	"testing"

	"service-mirror.io/service-mirror/testdata/harness"
)

// From a clone to a mirror that is verified: with kustomize or with Helm, by the README's commands alone, of which there are
// at most six, and no file is edited.
func TestQuickStart(t *testing.T) {
	for _, way := range []struct {
		name  string
		other string // what the commands of the other way have
		own   string
	}{
		{"kustomize", "helm ", "apply -k "},
		{"Helm", "apply -k ", "helm "},
	} {
		t.Run(way.name, func(t *testing.T) {
			var commands []string
			for _, command := range quickStart(t) {
				if !strings.Contains(command, way.other) {
					commands = append(commands, command)
				}
			}
			if len(commands) > 6 {
				t.Errorf("there are %d commands: %q", len(commands), commands)
			}
			if own := strings.Count(strings.Join(commands, "\n"), way.own); own != 2 {
				t.Errorf("%d commands are those of %s, want one for each cluster: %q", own, way.name, commands)
			}
			e := newEnv(t)
			e.clusters()
			e.gatewayAPI()
			e.bar()
			for _, cluster := range []*harness.Cluster{e.london, e.paris} {
				newNode(t, cluster, e.registry).start()
			}
			var says string
			for _, command := range commands {
				// There is nothing that runs curl's image: testdata/traffic sends requests from pods.
				if strings.Contains(command, " run call ") {
					continue
				}
				var err error
				says, err = e.run(strings.ReplaceAll(command, "registry.example.com", e.registry.host))
				e.must(err)
			}
			if !strings.Contains(says, "Linked and verified") {
				t.Error("the last command does not say that the mirror is verified")
			}
			e.mirrored(parisNode + ":80")
		})
	}
}

// quickStart are the commands of that section of the README which are for two clusters that there are.
func quickStart(t *testing.T) []string {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(readme), "\n## Quick start\n")
	if !found {
		t.Fatal("the README has no section Quick start")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var commands []string
	for _, block := range strings.Split(section, "\n\n") {
		if !strings.HasPrefix(block, "    ") || strings.Contains(block, "deploy/kind.sh") {
			continue
		}
		for line := range strings.Lines(strings.ReplaceAll(block, "\\\n", " ")) {
			command, _, _ := strings.Cut(strings.TrimSpace(line), "  # ")
			commands = append(commands, strings.Join(strings.Fields(command), " "))
		}
	}
	if len(commands) == 0 {
		t.Fatal("the quick start has no commands")
	}
	return commands
}
