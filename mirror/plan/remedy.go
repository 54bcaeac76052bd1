package plan

// Remedy is what an operator can do about problems of a reason, whichever mirror has them. A problem's message says
// more about its own mirror.
func (r Reason) Remedy() string { return remedies[r] }

var remedies = map[Reason]string{
	IsMirror:             "export the Service from the cluster that runs it, not its mirror",
	SystemService:        "remove its export label; for Services of kube-system, set --include-system",
	ExternalName:         "export a Service that has a ClusterIP, or use the external name itself",
	Headless:             "export a Service that has a ClusterIP for the same pods",
	NoTCPPort:            "reserve gateway ports for its UDP and SCTP ports, or remove its export label",
	InvalidName:          "export it under a shorter name, as a second Service for the same pods",
	NoClusterName:        "set --cluster-name, or remove the annotation " + ExportToAnnotation + " from the exported Service",
	Rejected:             "change the quota, the policy or the permissions that the message names; it is retried",
	NamespaceMissing:     "create the namespace in the local cluster, or set --create-namespaces",
	NamespaceTerminating: "wait until the namespace is gone, then create it again",
	Conflict:             "rename or delete what has the mirror's name, or remove the export label in the remote cluster",
	PortNotServed:        "set the port's appProtocol if it is HTTP; else reserve a gateway port for it",
	PortConflict:         "export the same port names, numbers and protocols in all remotes that are merged",
	NoAddress:            "give the gateway an address, or set address= in --remote; the remote's own problems say more",
	NoReadyEndpoint:      "start the exported Service's pods in the remote cluster, or fix their readiness probes",
	NotRouted:            "add the remote's name to --name of the publisher in the remote cluster",
	NoEndpointSlices:     "run Kubernetes' EndpointSlice mirroring controller, or set --endpoints-api=endpointslices",
	Renaming:             "wait until the mirror with the new name is complete; its own problems say what it waits for",
	ClusterIPLost:        "restart clients that keep the old ClusterIP",
	AnnotationsRemoved:   "remove these annotations from the mirror: the API server refuses them",
	TooManyDeletes:       "annotate the mirrors, as the message says, with " + ConfirmAnnotation + "=true to delete them, or export the Services again",
	Overwritten:          "stop the other program or webhook that changes the mirror",
	WriteFailed:          "fix what the message names; it is retried",
	NotReached:           "run service-mirror verify for the mirror, which names the cause",
	NoGateway:            "create the Gateway, or change --gateway of the publisher",
	NotAccepted:          "change the Gateway's listeners so that they allow the route, as the message says",

	NoRemote:         "list remotes in the annotation " + FailoverAnnotation + ", the preferred one first",
	UnknownRemote:    "add the remote with --remote, or remove it from the annotation " + FailoverAnnotation,
	NotExported:      "export the Service in the remote, under the same name and namespace",
	LocalTraffic:     "set the Service's internalTrafficPolicy to Cluster",
	NoHealthyAddress: "start the remote's gateway, or fix what its probes meet",
	NoHealthyRemote:  "start the local Service's pods, or fix what is said of its remotes",
}
