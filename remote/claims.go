package remote

import (
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
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
	of     map[cache.ObjectName]*claimed
	alone  index
	shared index
}

// claimed are the gateway ports of one record.
type claimed struct {
	service       cache.ObjectName
	uid           types.UID // of the Service that the record is about
	alone, shared []string
}

// index has records by their gateway ports. A map of each would take three times as much, where a hostile record has a
// hundred ports that no other one has.
type index map[string][]*claimed

func newClaims() *claims {
	return &claims{of: map[cache.ObjectName]*claimed{}, alone: index{}, shared: index{}}
}

// claimsOf are those of a record; none of nil.
func claimsOf(service cache.ObjectName, read *record.Record) *claimed {
	now := &claimed{service: service}
	if read != nil {
		now.uid = read.UID
		alone, shared := gateway.RecordClaims(*read)
		now.alone, now.shared = sets.List(sets.New(alone...)), sets.List(sets.New(shared...))
	}
	return now
}

// set notes what the record of a Service has, and returns the gateway ports that it had alone.
func (c *claims) set(now *claimed) (had []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if before := c.of[now.service]; before != nil {
		c.alone.remove(before, before.alone)
		c.shared.remove(before, before.shared)
		had = before.alone
	}
	if delete(c.of, now.service); len(now.alone)+len(now.shared) > 0 {
		c.of[now.service] = now
		c.alone.add(now, now.alone)
		c.shared.add(now, now.shared)
	}
	return had
}

func (i index) add(one *claimed, ports []string) {
	for _, claim := range ports {
		i[claim] = append(i[claim], one)
	}
}

func (i index) remove(one *claimed, ports []string) {
	for _, claim := range ports {
		all := i[claim]
		if at := slices.Index(all, one); at >= 0 {
			all[at] = all[len(all)-1]
			all[len(all)-1] = nil
			i[claim] = all[:len(all)-1]
		}
		if len(i[claim]) == 0 {
			delete(i, claim)
		}
	}
}

// aloneOf are the gateway ports that the record of a Service has alone.
func (c *claims) aloneOf(service cache.ObjectName) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if one := c.of[service]; one != nil {
		return one.alone
	}
	return nil
}

// crowd is how many records have a gateway port alone.
func (c *claims) crowd(claim string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.alone[claim])
}

// holders are the records that have a gateway port alone; none of a crowd.
func (c *claims) holders(claim string) []*claimed {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.alone[claim]) > maxAlone {
		return nil
	}
	return slices.Clone(c.alone[claim])
}

// rivals are the Services whose records have a gateway port, alone or with others.
func (c *claims) rivals(claim string) (names []cache.ObjectName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range slices.Concat(c.alone[claim], c.shared[claim]) {
		names = append(names, one.service)
	}
	return names
}
