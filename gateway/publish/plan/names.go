package plan

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"
)

// aliasSeparator separates namespace and name in an alias, and may be in neither of the two.
const aliasSeparator = "--"

// Alias is the name of the Service of type ExternalName by which a gateway with one static wildcard reaches an
// exported Service. Gateways make it of the Host header or the SNI, NAMESPACE--NAME, and no two Services have the
// same. The error says why a Service can have none.
func Alias(key cache.ObjectName) (string, error) {
	for _, part := range []struct{ kind, name string }{{"namespace", key.Namespace}, {"Service", key.Name}} {
		if strings.Contains(part.name, aliasSeparator) {
			return "", fmt.Errorf("%s %s has %q in its name, so its alias could be that of another Service: rename it, or use another --to", part.kind, part.name, aliasSeparator)
		}
	}
	alias := key.Namespace + aliasSeparator + key.Name
	if n := len(alias); n > validation.DNS1123LabelMaxLength {
		return "", fmt.Errorf("its alias %s has %d characters, more than the %d of a DNS label: rename the Service, or use another --to", alias, n, validation.DNS1123LabelMaxLength)
	}
	return alias, nil
}
