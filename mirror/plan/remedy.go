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
	InvalidName:          "shorten or correct what the message names: the Service's name, a name template, or an annotation",
	NoClusterName:        "set --cluster-name, or remove the annotation " + ExportToAnnotation + " from the exported Service",
	Rejected:             "change the quota, policy or permission named in the message; the write is retried",
	NamespaceMissing:     "create the namespace in the local cluster, or set --create-namespaces",
	NamespaceTerminating: "wait until the namespace is deleted, then recreate it",
	Conflict:             "rename or delete the object that already has the name, or remove the export label from the Service",
	PortNotServed:        "set the port's appProtocol if it is HTTP, reserve a gateway port for it, or fix the annotation or the gateway named in the message",
	PortConflict:         "export the same port names, numbers and protocols in all merged remotes",
	NoAddress:            "give the gateway an address, or set address= in --remote; see the problems of the remote",
	NoReadyEndpoint:      "start the exported Service's pods in the remote cluster, or fix their readiness probes",
	NotRouted:            "add the host name that clients send to the remote's publisher with --name, --host-template or --caller-namespace, or to the exported Service with the annotation service-mirror.io/hosts",
	NoEndpointSlices:     "run Kubernetes' EndpointSlice mirroring controller, or set --endpoints-api=endpointslices",
	Renaming:             "wait until the mirror with the new name is complete, or fix its problems",
	ClusterIPLost:        "restart clients that use the old ClusterIP",
	AnnotationsRemoved:   "do not set these annotations on the mirror: the API server rejects them",
	TooManyDeletes:       "to delete the mirrors, annotate them with " + ConfirmAnnotation + "=true; otherwise export the Services again",
	Overwritten:          "stop the other program or webhook that changes the mirror",
	WriteFailed:          "fix the cause named in the message; the write is retried",
	NotReached:           "run service-mirror verify for the mirror to see the cause",
	NoGateway:            "create the Gateway, or change --gateway of the publisher",
	NotAccepted:          "change the Gateway or the exported Service as the message says",

	NoRemote:         "list remotes in order of preference in the annotation " + FailoverAnnotation,
	UnknownRemote:    "link the remote, or remove it from the annotation " + FailoverAnnotation,
	NotExported:      "export the Service in the remote, under the same name and namespace",
	LocalTraffic:     "set the Service's internalTrafficPolicy to Cluster",
	NoHealthyAddress: "start the remote's gateway, or fix the cause of its failing probes",
	NoHealthyRemote:  "start the local Service's pods, or fix the problems of its remotes",
}
