package write

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
)

// An API server that does not answer holds up each mirror for one list of its namespace, however many there are.
func TestListsOfForeignEndpointsThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lists, down := 0, errors.New("TLS handshake timeout")
		client := metadatafake.NewSimpleMetadataClient(metadatafake.NewTestScheme())
		client.PrependReactor("list", "endpoints", func(clienttesting.Action) (bool, runtime.Object, error) {
			lists++
			time.Sleep(10 * time.Second)
			return true, nil, down
		})
		foreign := newForeignEndpoints(client)
		for round := range 2 {
			start := time.Now()
			var wg sync.WaitGroup
			for n := range 40 {
				wg.Go(func() {
					err := foreign.check(t.Context(), cache.NewObjectName("default", fmt.Sprint("mirror-", n)))
					if took := time.Since(start); took != 10*time.Second || !errors.Is(err, down) {
						t.Errorf("%v after %v", err, took)
					}
				})
			}
			wg.Wait()
			if lists != round+1 {
				t.Errorf("%d lists in round %d", lists, round+1)
			}
		}
	})
}
