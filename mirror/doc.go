// Package mirror keeps, in the local cluster, a Service and an Endpoints object for every Service that a
// remote cluster exports.
//
// The way of one event:
//
//	remote/        a watch reports that default/bar of paris has changed, and its cache has it
//	enqueue.go     exportChanged enqueues the mirror's key, default/bar-paris
//	queue/         the key waits for its turn, fair among remotes
//	sync.go        a worker of the queue takes it, and a Snapshot of everything that is known of the key
//	local/         ... of what is live in the local cluster, and of what was lost there
//	remotes.go     ... of what the remotes export
//	rename.go      ... of what becomes of a mirror whose name is another now
//	plan/          Decide turns the Snapshot into a Plan: steps, problems, when to look again
//	write/         Apply takes the steps, the only writes of the program
//	memory.go      commit remembers what came of them: back-offs, pending checks of EndpointSlices
//	report/        problems are logged, and become Events, metrics and the status page
//
// The rules are in plan/: whose an object is (ownership.go), which Services are mirrored (policy.go), what becomes of a
// mirror that exists (rename.go), how a mirror should be (service.go, endpoints.go), what is written for that and in
// which order (decide.go). Which gateway port serves a port is in package gateway. Whether requests to a mirror arrive
// is found out apart from all this: targets.go says what to dial, verify.go is the command, verdict.go what its results
// mean and which of them waiting may change, verifying.go what the daemon does by itself. How a remote is reached is in
// package remote. command/ has the program's commands, their flags, and the wiring.
//
// Local Services that fail over to remotes are not mirrors: failover/ has a queue and workers of its own for them, and
// plan/failover.go their rule.
//
// A merged mirror has a key for its Service and, for each remote, one for its part, the EndpointSlices: default/bar and
// default/bar.paris. merged.go enqueues and observes them together, plan/merged.go and plan/part.go decide them.
package mirror
