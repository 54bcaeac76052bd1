package mirror

import "service-mirror.io/service-mirror/mirror/plan"

type (
	Objects = plan.Objects
	Policy  = plan.Policy
	Source  = plan.Candidate
)

const (
	UseEndpoints      = plan.UseEndpoints
	UseEndpointSlices = plan.UseEndpointSlices
)
