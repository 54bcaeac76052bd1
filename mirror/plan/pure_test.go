package plan

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The decision must not depend on a client, a clock, a logger or a context: what this package may import is
// listed, so that a new import is a decision.
func TestPackageIsPure(t *testing.T) {
	allowed := []string{
		"cmp", "errors", "fmt", "maps", "net/netip", "slices", "strings", "time",
		"k8s.io/api/core/v1", "k8s.io/api/discovery/v1", "k8s.io/apimachinery/pkg/api/equality", "k8s.io/apimachinery/pkg/apis/meta/v1",
		"k8s.io/apimachinery/pkg/types", "k8s.io/apimachinery/pkg/util/intstr", "k8s.io/apimachinery/pkg/util/validation",
		"k8s.io/client-go/tools/cache", // of which it uses names
		"service-mirror.io/service-mirror/gateway",
	}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, entry := range files {
		if !strings.HasSuffix(entry.Name(), ".go") || strings.HasSuffix(entry.Name(), "_test.go") {
			continue
		}
		checked++
		file, err := parser.ParseFile(token.NewFileSet(), entry.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool { // of package time it is one type
			if selector, ok := n.(*ast.SelectorExpr); ok {
				if pkg, ok := selector.X.(*ast.Ident); ok && pkg.Name == "time" && selector.Sel.Name != "Duration" {
					t.Errorf("%s uses time.%s", entry.Name(), selector.Sel.Name)
				}
			}
			return true
		})
		for _, spec := range file.Imports {
			if path, err := strconv.Unquote(spec.Path.Value); err != nil || !slices.Contains(allowed, path) {
				t.Errorf("%s imports %s", entry.Name(), spec.Path.Value)
			}
		}
	}
	if checked < 8 {
		t.Errorf("only %d files were checked", checked)
	}
}
