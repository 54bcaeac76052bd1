package install
import (
 _ "helm.sh/helm/v3/pkg/action"
 _ "service-mirror.io/service-mirror/testdata/harness"
)
