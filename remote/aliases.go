package remote

import (
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway/publish/record"
)

// aliases are the names NAME.NAMESPACE of other Services that a remote's gateways route to exported ones, by its records.
// No record is read again for a look at them.
type aliases struct {
	mu sync.Mutex
	of map[cache.ObjectName]*aliased // by the Service that the record is about
	by map[cache.ObjectName][]*aliased
}

// aliased is one record.
type aliased struct {
	service cache.ObjectName
	uid     types.UID // of the Service that the record is about
	names   []cache.ObjectName
}

func newAliases() *aliases {
	return &aliases{of: map[cache.ObjectName]*aliased{}, by: map[cache.ObjectName][]*aliased{}}
}

// aliasesOf are those of a record; none of nil.
func aliasesOf(service cache.ObjectName, read *record.Record) *aliased {
	now := &aliased{service: service}
	if read == nil {
		return now
	}
	now.uid = read.UID
	for _, host := range read.Hosts {
		name, namespace, _ := strings.Cut(host, ".")
		key := cache.NewObjectName(namespace, name)
		if namespace != "" && !strings.Contains(namespace, ".") && key != service && !slices.Contains(now.names, key) {
			now.names = append(now.names, key)
		}
	}
	return now
}

// set notes what the record of a Service has, and returns the names that it had.
func (a *aliases) set(now *aliased) (had []cache.ObjectName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if before := a.of[now.service]; before != nil {
		had = before.names
		for _, name := range had {
			if a.by[name] = slices.DeleteFunc(a.by[name], func(one *aliased) bool { return one == before }); len(a.by[name]) == 0 {
				delete(a.by, name)
			}
		}
	}
	if delete(a.of, now.service); len(now.names) == 0 {
		return had
	}
	a.of[now.service] = now
	for _, name := range now.names {
		a.by[name] = append(a.by[name], now)
	}
	return had
}

// routed are the records that have a name.
func (a *aliases) routed(name cache.ObjectName) []*aliased {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.by[name])
}

// names are those of the record of a Service.
func (a *aliases) names(service cache.ObjectName) []cache.ObjectName {
	a.mu.Lock()
	defer a.mu.Unlock()
	if one := a.of[service]; one != nil {
		return slices.Clone(one.names)
	}
	return nil
}
