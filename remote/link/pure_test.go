package link

import (
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"
)

// What a link writes must not depend on a client, a clock, a logger or a context.
func TestDecisionsArePure(t *testing.T) {
	allowed := []string{
		"bytes", "cmp", "encoding/pem", "errors", "fmt", "net/netip", "net/url", "slices", "strconv", "strings", "maps",
		"k8s.io/api/apps/v1", "k8s.io/api/core/v1", "k8s.io/api/networking/v1", "k8s.io/api/rbac/v1",
		"k8s.io/apimachinery/pkg/apis/meta/v1", "k8s.io/apimachinery/pkg/labels", "k8s.io/apimachinery/pkg/runtime",
		"k8s.io/apimachinery/pkg/types", "k8s.io/apimachinery/pkg/util/intstr", "k8s.io/client-go/tools/cache",
		"k8s.io/client-go/tools/clientcmd", "k8s.io/client-go/tools/clientcmd/api",
		"service-mirror.io/service-mirror/gateway", "service-mirror.io/service-mirror/mirror/plan", "service-mirror.io/service-mirror/remote",
	}
	for _, name := range []string{"keys.go", "decide.go", "secret.go", "grants.go", "daemon.go", "network.go", "kubeconfig.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range file.Imports {
			if path, err := strconv.Unquote(spec.Path.Value); err != nil || !slices.Contains(allowed, path) {
				t.Errorf("%s imports %s", name, spec.Path.Value)
			}
		}
	}
}
