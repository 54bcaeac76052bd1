package remote

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/publish/record"
)

// maxAlone is how many records may have one gateway port alone: a publisher gives it to one Service, and may give it to
// another before the record of the first is gone. Of more, which only a hostile remote has, it is nobody's: a sync must not
// look at each of them.
const maxAlone = 100

// claims are the gateway ports that the records of a remote have. No record is read again for a look at them.
type claims struct {
	mu     sync.Mutex
	of     map[cache.ObjectName]claimed
	alone  map[string]map[cache.ObjectName]bool // the Services by the ports that their records have alone
	shared map[string]map[cache.ObjectName]bool
}

// claimed are the gateway ports of one record.
type claimed struct {
	uid           types.UID // of the Service that the record is about
	alone, shared []string
}

func newClaims() *claims {
	return &claims{of: map[cache.ObjectName]claimed{}, alone: map[string]map[cache.ObjectName]bool{}, shared: map[string]map[cache.ObjectName]bool{}}
}

// claimsOf are those of a record.
func claimsOf(read record.Record) claimed {
	alone, shared := gateway.RecordClaims(read)
	return claimed{read.UID, alone, shared}
}

// set notes what the record of a Service has, in place of what it had, which is returned.
func (c *claims) set(service cache.ObjectName, now claimed) (before claimed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before = c.of[service]
	reindex(c.alone, service, before.alone, now.alone)
	reindex(c.shared, service, before.shared, now.shared)
	if delete(c.of, service); len(now.alone)+len(now.shared) > 0 {
		c.of[service] = now
	}
	return before
}

func reindex(index map[string]map[cache.ObjectName]bool, service cache.ObjectName, before, now []string) {
	for _, claim := range before {
		if delete(index[claim], service); len(index[claim]) == 0 {
			delete(index, claim)
		}
	}
	for _, claim := range now {
		if index[claim] == nil {
			index[claim] = map[cache.ObjectName]bool{}
		}
		index[claim][service] = true
	}
}

// aloneOf are the gateway ports that the record of a Service has alone.
func (c *claims) aloneOf(service cache.ObjectName) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of[service].alone
}

// crowd is how many records have a gateway port alone.
func (c *claims) crowd(claim string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.alone[claim])
}

// holders are the Services whose records have a gateway port alone, with the UIDs that these have; none of a crowd.
func (c *claims) holders(claim string) map[cache.ObjectName]types.UID {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.alone[claim]) == 0 || len(c.alone[claim]) > maxAlone {
		return nil
	}
	holders := map[cache.ObjectName]types.UID{}
	for service := range c.alone[claim] {
		holders[service] = c.of[service].uid
	}
	return holders
}

// rivals are the Services whose records have a gateway port, alone or with others.
func (c *claims) rivals(claim string) (names []cache.ObjectName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, index := range []map[string]map[cache.ObjectName]bool{c.alone, c.shared} {
		for service := range index[claim] {
			names = append(names, service)
		}
	}
	return names
}
