package publish

import (
	"context"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway/publish/plan"
	"service-mirror.io/service-mirror/remote"
	"service-mirror.io/service-mirror/remote/failure"
)

// kind is a kind of object whose version is discovered, and the cache of what is read of it.
type kind struct {
	resource  schema.GroupResource
	versions  []string // the best first
	namespace string   // empty: all
	narrow    func(*metav1.ListOptions)
	listeners func(*unstructured.Unstructured) []string // that an object attaches to; nil: those of no kind are asked for
	changed   func(before, after *remote.Unstructured)  // either may be nil, not both
	synced    func()                                    // all objects are known, or the kind is not served any more

	mu      sync.Mutex
	version string // empty: not served, as far as is known
	found   bool   // it was discovered whether it is
	err     error  // of the last attempt to discover or to read it
	objects *remote.Written[*remote.Unstructured]
	stop    context.CancelFunc
}

// byService is the index of objects by the exported Service that their labels name.
const byService = "service"

// byListener is the index of objects by the listeners of the Gateway that they attach to.
const byListener = "listener"

// attached are the objects that attach to a listener.
func (k *kind) attached(listener string) []*remote.Unstructured {
	objects := k.cached()
	if objects == nil || k.listeners == nil {
		return nil
	}
	return objects.Informer.ByIndex(byListener, listener)
}

// state is the served version, empty where none is, and whether all objects are known.
func (k *kind) state() (version string, known bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.version == "" {
		return "", k.found
	}
	return k.version, k.objects.Informer.HasSynced()
}

// cached is the cache of the version that is served; nil while none is.
func (k *kind) cached() *remote.Written[*remote.Unstructured] {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.objects
}

// keep discovers the kind's version, now and then, and keeps its objects cached until the context ends.
func (k *kind) keep(ctx context.Context, clients Clients, report func(part string, err error)) {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		version, err := k.discover(ctx, clients)
		if ctx.Err() != nil {
			return
		}
		k.fail("discovery", err)
		report("discovery of "+k.resource.Resource, err)
		if err == nil {
			k.serve(ctx, version, clients.ReadDynamic, report, &running)
		}
		period := discoveryPeriod
		switch {
		case version == "" || err != nil:
		case builtIn(k.resource.Group):
			<-ctx.Done()
			return
		default:
			period = servedPeriod
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(period):
		}
	}
}

// discover finds the best version that is served; empty: none is.
func (k *kind) discover(ctx context.Context, clients Clients) (string, error) {
	for _, version := range k.versions {
		if served, err := clients.Serves(ctx, k.resource.WithVersion(version)); err != nil || served {
			return version, err
		}
	}
	return "", nil
}

// serve reads the kind in a version, instead of the one before.
func (k *kind) serve(ctx context.Context, version string, client dynamic.Interface, report func(string, error), running *sync.WaitGroup) {
	k.mu.Lock()
	if k.found && k.version == version {
		k.mu.Unlock()
		return
	}
	if k.stop != nil {
		k.stop()
	}
	k.found, k.version, k.objects, k.stop = true, version, nil, nil
	if version == "" {
		k.mu.Unlock()
		k.fail("", nil) // what could not be read is not missed any more
		report(k.resource.Resource, nil)
		k.synced()
		return
	}
	objects := k.inform(version, client, report)
	ctx, k.stop = context.WithCancel(ctx)
	k.objects = objects
	k.mu.Unlock()
	running.Go(func() { objects.Informer.RunWithContext(ctx) })
	running.Go(func() {
		if cache.WaitFor(ctx, "", objects.Informer.HasSyncedChecker()) {
			k.synced()
		}
	})
}

// inform makes the cache of a version.
func (k *kind) inform(version string, client dynamic.Interface, report func(string, error)) *remote.Written[*remote.Unstructured] {
	var objects dynamic.ResourceInterface = client.Resource(k.resource.WithVersion(version))
	if k.namespace != "" {
		objects = client.Resource(k.resource.WithVersion(version)).Namespace(k.namespace)
	}
	lw := remote.NewListWatch(remote.Dynamic{Objects: objects}, k.narrow)
	lw.Namespace, lw.Client = k.namespace, client
	lw.Report = func(err error) {
		k.fail("", err)
		report(k.resource.Resource, err)
	}
	written := &remote.Written[*remote.Unstructured]{Again: func(obj *remote.Unstructured) { k.changed(nil, obj) }}
	lw.Reset = written.Reset
	written.Informer = remote.NewInformer(lw, &remote.Unstructured{}, remote.TrimUnstructured)
	written.Informer.Index(byService, func(obj *remote.Unstructured) []string {
		if key, ours := plan.KeyOf(obj); ours {
			return []string{key.String()}
		}
		return nil
	})
	if k.listeners != nil {
		written.Informer.Index(byListener, func(obj *remote.Unstructured) []string { return k.listeners(&obj.Unstructured) })
	}
	written.Informer.Handle(remote.Handler[*remote.Unstructured]{
		Known:   written.Known, // what was created here had no status yet
		Added:   func(obj *remote.Unstructured) { k.changed(nil, obj) },
		Updated: k.changed,
		Deleted: func(name cache.ObjectName, last *remote.Unstructured) {
			if last == nil {
				last = &remote.Unstructured{}
				last.SetNamespace(name.Namespace)
				last.SetName(name.Name)
			}
			k.changed(last, nil)
		},
	})
	return written
}

// wrote notes an object as the API server answered a write of it.
func (k *kind) wrote(obj *unstructured.Unstructured) {
	if objects := k.cached(); objects != nil {
		objects.Add(remote.TrimUnstructured(&remote.Unstructured{Unstructured: *obj}))
	}
}

// fail notes why a step in reading the kind fails; nil: it does not. What is discovered can still be unreadable.
func (k *kind) fail(step string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if step == "discovery" && err == nil && k.version != "" {
		return // that of the list counts
	}
	k.err = err
}

// problem is why the kind is not known, as far as an error says so.
func (k *kind) problem() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		return ""
	}
	return failure.Cause(k.err)
}
