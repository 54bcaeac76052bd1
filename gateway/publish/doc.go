// Package publish keeps, in a cluster that exports Services, what has its gateway route to them, and a record of each for
// the clusters that mirror them. It is the remote's own half of service-mirror.
//
// The way of one event is that of package mirror:
//
//	caches.go      a watch reports that default/bar is exported, and the cache has it
//	kinds.go       ... or one of its routes has changed, of a kind that the API server was found to serve (discovery.go)
//	controller.go  its key waits in mirror/queue, and a worker of that takes it
//	snapshot.go    everything that is known of it
//	plan/          Decide makes a Plan of that: routes, alias, record, steps, problems
//	apply.go       takes the steps, the only writes but for the Gateway's listeners (listeners.go)
//	memory.go      remembers what came of them, and which gateway port is whose
//
// page.go is what the status page shows, check.go is --check, dryrun.go --dry-run and prune.go --prune.
package publish
