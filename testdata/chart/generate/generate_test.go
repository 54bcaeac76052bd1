package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const deploy = "../../../deploy"

// What is committed is what would be made now, and nothing else says that it was made.
func TestUpToDate(t *testing.T) {
	made := map[string]bool{}
	for _, template := range templates {
		want, err := template.make(deploy)
		if err != nil {
			t.Error(err)
			continue
		}
		path := template.path(deploy)
		made[path] = true
		if has, err := os.ReadFile(path); err != nil || string(has) != want {
			t.Errorf("%s is not what deploy/%s makes (%v): run deploy/chart/build.sh and commit its output", path, template.from, err)
		}
	}
	rule, err := makeRule(deploy)
	if has, errRead := os.ReadFile(rulePath(deploy)); err != nil || errRead != nil || string(has) != rule {
		t.Errorf("monitoring/rule.yaml is not what alerts.yaml makes (%v, %v): run deploy/chart/build.sh and commit its output", err, errRead)
	}
	walk(t, filepath.Join(deploy, "chart/templates"), func(path, text string) {
		if strings.Contains(text, "by deploy/chart/build.sh") && !made[path] {
			t.Errorf("%s is not made from anything anymore: remove it", path)
		}
	})
}

// Every file of the kustomizations is in the chart: one that is added must be added here, too.
func TestEveryFileIsInTheChart(t *testing.T) {
	from := map[string]bool{}
	for _, template := range templates {
		from[template.from] = true
	}
	// The namespace of a release is Helm's to create.
	for _, left := range []string{"local/namespace.yaml", "publish/namespace.yaml", "remote/account/namespace.yaml"} {
		from[left] = true
	}
	for _, side := range []string{"local", "publish", "remote"} {
		walk(t, filepath.Join(deploy, side), func(path, _ string) {
			name, _ := filepath.Rel(deploy, path)
			if filepath.Base(path) != "kustomization.yaml" && !from[name] {
				t.Errorf("the chart has nothing of deploy/%s: add it to templates.go", name)
			}
		})
	}
}

// A namespace or an account's name that is not replaced works in the usual namespace only.
func TestNoNameIsLeft(t *testing.T) {
	fixed := []*regexp.Regexp{
		regexp.MustCompile(`managed-by'?\]?(: |\.orValue\(''\) == ')service-mirror`),
		regexp.MustCompile(`metadata\.name == 'service-mirror'`), // the Lease
		regexp.MustCompile(`component\.orValue\(''\) == 'service-mirror'`),
		regexp.MustCompile(`app\.kubernetes\.io/name: service-mirror`),
	}
	suspect := regexp.MustCompile(`namespace: service-mirror|'service-mirror'|service-mirror/service-mirror|ServiceAccount service-mirror`)
	for _, template := range templates {
		text, err := template.make(deploy)
		if err != nil {
			t.Error(err)
			continue
		}
		for line := range strings.Lines(text) {
			line, _, _ = strings.Cut(line, "#")
			for _, ok := range fixed {
				line = ok.ReplaceAllString(line, "")
			}
			if left := suspect.FindString(line); left != "" {
				t.Errorf("%s: %q is the same in every namespace: %s", template.to, left, line)
			}
		}
	}
}

// A file that has changed so that an edit finds nothing is an error, and not a template that lacks it.
func TestLostEdit(t *testing.T) {
	lost := template{from: "local/rbac.yaml", to: "x.yaml", when: "true", edits: []edit{{"not there", ""}}}
	if _, err := lost.make(deploy); err == nil || !strings.Contains(err.Error(), "local/rbac.yaml does not have what the chart replaces") {
		t.Errorf("got %v", err)
	}
}

func walk(t *testing.T, dir string, each func(path, text string)) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files++
		content, err := os.ReadFile(path)
		each(path, string(content))
		return err
	})
	if err != nil || files == 0 {
		t.Fatalf("%s: %d files, %v", dir, files, err)
	}
}
