package mirror

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2/textlogger"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/remote"
)

// world is a local cluster, remotes, and a controller between them.
type world struct {
	*testing.T
	server     *apiserver
	controller *Controller
	remotes    map[string]*fakeRemote
	log        *lockedBuffer
	start      func() // runs the controller
	stop       func() // ends the controller and waits for it
	standby    bool   // the controller does not lead, if this is set before it starts
	wire       *wire  // for writes; nil: the fake client
	ended      chan struct{}
}

// run runs a test with a world inside a bubble of virtual time. Its namespaces are
// default and kube-system; the caches of its remotes are synced from the start, and their
// gateway is that of parisGateway. The controller is not started yet.
func run(t *testing.T, options Options, remotes []string, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, server: newAPIServer(), remotes: map[string]*fakeRemote{}, log: &lockedBuffer{}}
		w.server.put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
		w.server.put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: "home-uid"}})
		w.use(options, remotes...)
		defer func() { w.stop() }()
		test(w)
	})
}

// use creates a new controller for the same local cluster.
func (w *world) use(options Options, remotes ...string) {
	if options.Workers == 0 {
		options.Workers = 4
	}
	logger := textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(w.log)))
	clients := Clients{Read: w.server.client, Metadata: w.server.meta, Write: w.server.client}
	if w.wire != nil {
		clients.Write = w.wire.dial()
	}
	w.controller = New(clients, options, logger)
	for _, name := range remotes {
		r := w.remotes[name]
		if r == nil {
			r = newFakeRemote(name)
			w.remotes[name] = r
		}
		r.hooks = w.controller.Hooks(name)
		add(w.controller, r)
	}
	ctx, cancel := context.WithCancel(w.Context())
	started := make(chan struct{})
	w.ended = make(chan struct{})
	start := sync.OnceFunc(func() { close(started) })
	controller, ended := w.controller, w.ended
	go func() {
		defer close(ended)
		<-started
		var wg sync.WaitGroup
		wg.Go(func() {
			select {
			case <-ctx.Done():
			case <-controller.Ready():
				if !w.standby {
					controller.Lead(ctx, 5*time.Second)
				}
			}
		})
		controller.Run(ctx)
		wg.Wait()
	}()
	w.start = start
	w.stop = func() {
		start() // a controller that never ran would never end
		cancel()
		<-ended
		controller.queue.ShutDown()
		synctest.Wait()
	}
}

// add configures one more remote, in place of one that has its name.
func add(c *Controller, r Remote) {
	others := slices.DeleteFunc(slices.Clone(c.remotes.all()), func(other Remote) bool { return other.Name() == r.Name() })
	c.remotes.set(*c.remotes.policy(), append(others, r))
}

// lead has a standby lead until it is deposed.
func (w *world) lead() (depose func()) {
	ctx, cancel := context.WithCancel(w.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.controller.Lead(ctx, 5*time.Second)
	}()
	return func() { cancel(); <-ended }
}

// settle starts the controller and waits until it is idle.
func (w *world) settle() {
	w.start()
	w.wait(time.Second)
}

func (w *world) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// expect wants these writes, in any order, and no others since the last call. The create
// of a namespace may be repeated until the cache has it.
func (w *world) expect(want ...string) []written {
	w.Helper()
	writes := slices.DeleteFunc(w.server.wrote(), func(write written) bool {
		return strings.HasPrefix(write.what, "create namespaces ") && apierrors.IsAlreadyExists(write.err)
	})
	var got []string
	for _, write := range writes {
		got = append(got, write.what)
	}
	sorted, wanted := slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if !slices.Equal(sorted, wanted) {
		w.Errorf("written:\n  %s\nwanted:\n  %s\nlog:\n%s", strings.Join(got, "\n  "), strings.Join(want, "\n  "), w.log)
	}
	return writes
}

// logged wants a number of log lines that contain a text.
func (w *world) logged(times int, text string) {
	w.Helper()
	if got := w.log.count(text); got != times {
		w.Errorf("%q is logged %d times, want %d:\n%s", text, got, times, w.log)
	}
}

// pair returns the objects in the local cluster that have the name of default/bar's mirror.
func (w *world) pair() Objects {
	return Objects{Service: w.server.service("default", "bar-paris"), Endpoints: w.server.endpoints("default", "bar-paris")}
}

// mirrored wants default/bar of paris to be mirrored as it should be.
func (w *world) mirrored() {
	w.Helper()
	pair := w.pair()
	if pair.Service == nil || pair.Endpoints == nil {
		w.Fatalf("the mirror is incomplete: Service %s, Endpoints %s\nlog:\n%s", text(pair.Service), text(pair.Endpoints), w.log)
	}
	want, clusterIP := storedBar(), pair.Service.Spec.ClusterIP
	want.Service.Spec.ClusterIP, want.Service.Spec.ClusterIPs = clusterIP, []string{clusterIP}
	want.Service.UID, want.Service.ResourceVersion = pair.Service.UID, pair.Service.ResourceVersion
	want.Endpoints.UID, want.Endpoints.ResourceVersion = pair.Endpoints.UID, pair.Endpoints.ResourceVersion
	checkObjects(w.T, pair, want)
}

// fakeRemote is a remote cluster as package remote shows it.
type fakeRemote struct {
	name     string
	hooks    remote.Hooks
	services *remote.Informer[*corev1.Service] // which does not run

	records        *remote.Records // nil: none are read
	configMaps     *remote.Informer[*corev1.ConfigMap]
	recordsUnknown bool

	mu      sync.Mutex
	unknown bool // nothing is known of it
	gateway *gateway.Gateway
	uid     types.UID

	namespaces []string
	problems   []remote.Problem
	refiltered int
	views      int // how often it was looked at
}

func newFakeRemote(name string) *fakeRemote {
	services := remote.NewInformer(&remote.ListWatch{}, &corev1.Service{}, func(svc *corev1.Service) *corev1.Service { return svc })
	for index, values := range indexes {
		services.Index(index, values)
	}
	return &fakeRemote{name: name, gateway: parisGateway(), uid: types.UID(name + "-uid"), services: services}
}

func (r *fakeRemote) Name() string { return r.name }

func (r *fakeRemote) Status() remote.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unknown {
		return remote.Status{Name: r.name, State: remote.Connecting}
	}
	return remote.Status{Name: r.name, State: remote.Up, Problems: r.problems, UID: r.uid}
}

func (r *fakeRemote) Refilter() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refiltered++
}

func (r *fakeRemote) View() (remote.View, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.views++
	if r.unknown {
		return remote.View{}, false
	}
	return remote.View{Services: remote.Services{r.services}, Gateways: remote.Gateways{Known: map[cache.ObjectName]*gateway.Gateway{{}: r.gateway}}, Records: r.records, UID: r.uid, Namespaces: r.namespaces}, true
}

// know makes the remote known, or unknown.
func (r *fakeRemote) know(known bool) {
	r.mu.Lock()
	r.unknown = !known
	r.mu.Unlock()
	r.hooks.Resync(r.name)
}

func (r *fakeRemote) setGateway(gw *gateway.Gateway) {
	r.mu.Lock()
	r.gateway = gw
	r.mu.Unlock()
	r.hooks.Resync(r.name)
}

func (r *fakeRemote) export(svc *corev1.Service) {
	before := r.services.Get(cache.MetaObjectToName(svc))
	after := r.hooks.Trim(svc.DeepCopy())
	must(r.services.GetIndexer().Add(remote.Encode(after)))
	r.hooks.Changed(r.name, before, after)
}

func (r *fakeRemote) unexport(svc *corev1.Service) {
	before := r.services.Get(cache.MetaObjectToName(svc))
	must(r.services.GetIndexer().Delete(svc))
	r.hooks.Changed(r.name, cmp.Or(before, svc), nil)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func (b *lockedBuffer) count(text string) int {
	var n int
	for line := range strings.Lines(b.String()) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

func metav1Now() metav1.Time { return metav1.NewTime(time.Now().Truncate(time.Second)) }

// onServices makes an admission of what it does to Services; onEndpoints likewise.
func onServices(change func(*corev1.Service)) func(runtime.Object) {
	return func(obj runtime.Object) {
		if svc, ok := obj.(*corev1.Service); ok {
			change(svc)
		}
	}
}

func onEndpoints(change func(*corev1.Endpoints)) func(runtime.Object) {
	return func(obj runtime.Object) {
		if endpoints, ok := obj.(*corev1.Endpoints); ok {
			change(endpoints)
		}
	}
}
