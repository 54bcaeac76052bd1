package gateway

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"
)

// The rules must not depend on a client, a clock, a logger or a context: what a pure
// file may import is listed, so that a new import is a decision. Of client-go it is
// one type, a namespace and a name.
func TestRulesArePure(t *testing.T) {
	allowed := []string{
		"cmp", "errors", "fmt", "maps", "math", "net/netip", "slices", "strconv", "strings",
		"k8s.io/api/core/v1", "k8s.io/apimachinery/pkg/api/equality", "k8s.io/apimachinery/pkg/apis/meta/v1",
		"k8s.io/apimachinery/pkg/util/validation", "k8s.io/client-go/tools/cache", "service-mirror.io/service-mirror/gateway/publish/record",
	}
	names := []string{"ObjectName", "NewObjectName", "MetaObjectToName"}
	for _, name := range []string{"gateway.go", "classes.go", "annotations.go", "ports.go", "reserved.go", "published.go", "api.go", "filter.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(file.Imports) == 0 {
			t.Errorf("%s imports nothing: is it the file that is meant?", name)
		}
		for _, spec := range file.Imports {
			if path, err := strconv.Unquote(spec.Path.Value); err != nil || !slices.Contains(allowed, path) {
				t.Errorf("%s imports %s", name, spec.Path.Value)
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if selector, ok := n.(*ast.SelectorExpr); ok {
				if pkg, ok := selector.X.(*ast.Ident); ok && pkg.Name == "cache" && !slices.Contains(names, selector.Sel.Name) {
					t.Errorf("%s uses cache.%s", name, selector.Sel.Name)
				}
				if pkg, ok := selector.X.(*ast.Ident); ok && pkg.Name == "metav1" && selector.Sel.Name == "Now" {
					t.Errorf("%s reads the clock", name)
				}
			}
			return true
		})
	}
}
