// Package gatewayapi pins the version of the Gateway API whose CRDs the tests apply.
package gatewayapi

import _ "sigs.k8s.io/gateway-api/apis/v1" // or the module would not be needed, and its version not be kept
