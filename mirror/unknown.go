package mirror

import (
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/mirror/local"
	"service-mirror.io/service-mirror/remote/logging"
)

// unknownPeriod is how often the objects that name an unknown remote are counted for the log.
const unknownPeriod = time.Minute

// logUnknown says of which remotes objects exist that the flags do not name: all at first, then each that is new.
// Whoever may label objects may invent any number of them.
func logUnknown(logger klog.Logger, local *local.Cluster, logged sets.Set[string]) {
	const most = 10
	unknown := local.Unknown()
	for cluster := range logged {
		if unknown[cluster] == 0 {
			logged.Delete(cluster)
		}
	}
	fresh := slices.Sorted(maps.Keys(unknown))
	fresh = slices.DeleteFunc(fresh, logged.Has)
	logged.Insert(fresh...)
	for _, cluster := range fresh[:min(most, len(fresh))] {
		logging.Warn(logger, "Remote cluster is not configured; its mirrors are kept until they are pruned", "cluster", cluster, "mirrors", len(local.Mirrors(cluster)), "objects", unknown[cluster])
	}
	if more := len(fresh) - most; more > 0 {
		logging.Warn(logger, "More remote clusters are not configured; their mirrors are kept until they are pruned", "remotes", more)
	}
}
