package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// WithComponents copies deploy/local, which is at from, to an empty directory, with the
// components turned on that its kustomization.yaml has as comments.
func WithComponents(from, to string, components ...string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	path := filepath.Join(to, "kustomization.yaml")
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text := string(content)
	for _, component := range components {
		comment := "\n# - " + component
		if !strings.Contains(text, comment+" ") {
			return fmt.Errorf("%s does not have %s as a comment:\n%s", path, component, text)
		}
		text = strings.Replace(text, comment, "\n- "+component, 1)
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
