package e2e

import (
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
)

// hardship is how long a test of endurance makes things hard: E2E_HARDSHIP, or what suits a test run.
func hardship(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("E2E_HARDSHIP")
	if text == "" {
		return 30 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("E2E_HARDSHIP: %v", err)
	}
	return d
}

// localFront has the daemon reach its own cluster through a front.
func (e *env) localFront() *front {
	e.Helper()
	f := newFront(e.T, e.local, nil)
	token := e.tokenOf(e.kubeconfig)
	e.kubeconfig += ".front"
	e.writeKubeconfig(e.kubeconfig, f.server.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.server.Certificate().Raw}), token)
	return f
}

// slowly passes requests on after a while.
func slowly(after time.Duration) frontFault {
	return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
		select {
		case <-r.Context().Done():
		case <-time.After(after):
			upstream.ServeHTTP(w, r)
		}
	}
}

// A local API server that is overloaded, broken or slow delays what is written, and nothing else: no mirror is
// lost, requests do not pile up, the log does not fill, and afterwards everything is as it should be.
func TestLocalClusterIsOverloaded(t *testing.T) {
	t.Parallel()
	busy := apierrors.NewTooManyRequests("The server has received too many requests.", 1)
	broken := apierrors.NewInternalError(fmt.Errorf("etcdserver: no leader"))
	for name, test := range map[string]struct {
		fault       frontFault
		progresses  bool // although it is slow
		mostRequest int  // a second
	}{
		"429":  {refuses(busy), false, 20},
		"500":  {refuses(broken), false, 20},
		"slow": {slowly(2 * time.Second), true, 20},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			f := e.localFront()
			r := e.remote(paris)
			r.gateway("203.0.113.1")
			r.exportMany(20)
			d := e.daemon([]*remote{r}, listening...)
			for i := range 20 {
				e.soon("the mirrors", r.mirrored(fmt.Sprintf("bar%d", i), "203.0.113.1"))
			}
			before := e.identities()

			var requests atomic.Int64
			since, lines := time.Now(), strings.Count(d.log.String(), "\n")
			f.fail(func(w http.ResponseWriter, req *http.Request, upstream http.Handler) {
				requests.Add(1)
				test.fault(w, req, upstream)
			})
			r.export("late")
			r.gateway("203.0.113.2")
			e.remove(paris, "bar0")
			time.Sleep(time.Until(since.Add(hardship(t))))
			if test.progresses {
				e.eventually(time.Minute, "late", r.mirrored("late", "203.0.113.2"))
			}
			took := time.Since(since)
			if most := int64(took.Seconds() * float64(test.mostRequest)); requests.Load() > most {
				t.Errorf("%d requests in %v, want at most %d", requests.Load(), took.Round(time.Second), most)
			}
			if more := strings.Count(d.log.String(), "\n") - lines; more > 60 {
				t.Errorf("%d log lines in %v", more, took.Round(time.Second))
			}
			f.recover()
			f.server.CloseClientConnections()
			e.eventually(40*time.Second, "late", r.mirrored("late", "203.0.113.2")) // retries are up to 30 s apart
			e.eventually(40*time.Second, "bar0", r.gone("bar0"))
			for i := 1; i < 20; i++ {
				e.eventually(40*time.Second, "every mirror", r.mirrored(fmt.Sprintf("bar%d", i), "203.0.113.2"))
			}
			for name, uid := range e.identities() {
				if had, existed := before[name]; existed && had != uid {
					t.Errorf("%s was recreated", name)
				}
			}
			e.eventually(40*time.Second, "no problem is left", d.localFails(false))
		})
	}
}

// Many Services that wait for one namespace are one line of the log, and are mirrored when it appears.
func TestManyServicesWaitForANamespace(t *testing.T) {
	e := newLoneEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	waiting := e.id + "-waiting"
	e.makeNamespace(paris, waiting)
	const n = 1000
	errs := make([]error, n)
	workqueue.ParallelizeUntil(e.ctx, 16, n, func(i int) {
		svc := r.exported(fmt.Sprintf("bar%d", i), func(svc *corev1.Service) { svc.Namespace = waiting })
		_, errs[i] = paris.CoreV1().Services(waiting).Create(e.ctx, svc, metav1.CreateOptions{})
	})
	for _, err := range errs {
		e.must(err)
	}
	d := e.daemon([]*remote{r}, listening...)
	e.eventually(30*time.Second, "all wait", d.measures(map[string]float64{r.problem("NamespaceMissing"): n}))
	if lines := strings.Count(d.log.String(), "NamespaceMissing"); lines > 10 {
		t.Errorf("%d lines of the log are about the namespace", lines)
	}
	e.makeNamespace(london, waiting)
	e.eventually(4*time.Minute, "all are mirrored", d.measures(map[string]float64{r.problem("NamespaceMissing"): 0, r.state("mirrored"): n}))
	list, err := london.CoreV1().Services(waiting).List(e.ctx, metav1.ListOptions{})
	e.must(err)
	if len(list.Items) != n {
		t.Errorf("%d mirrors, want %d", len(list.Items), n)
	}
	if lines := strings.Count(d.log.String(), "NamespaceMissing"); lines > 200 { // they are over one by one
		t.Errorf("%d lines of the log are about the namespace", lines)
	}
}

// usage is what a process has.
type usage struct{ goroutines, files, kilobytes int }

func (d *daemon) usage() usage {
	d.t.Helper()
	var u usage
	_, text, err := d.get("/debug/pprof/goroutine?debug=1")
	if err == nil {
		_, err = fmt.Sscanf(text, "goroutine profile: total %d", &u.goroutines)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	proc := "/proc/" + strconv.Itoa(d.cmd.Cmd.Process.Pid)
	files, err := os.ReadDir(proc + "/fd")
	if err != nil {
		d.t.Fatal(err)
	}
	u.files = len(files)
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		d.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		fmt.Sscanf(line, "VmRSS: %d kB", &u.kilobytes)
	}
	return u
}

// A proxy that cuts connections at random, for as long as it likes, leaves no goroutine, no file and no memory
// behind, and no change is lost.
func TestConnectionsAreCutAtRandom(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.exportMany(20)
	d := e.daemon([]*remote{r}, append(listening, "--pprof")...)
	e.soon("the mirrors", r.mirrored("bar19", "203.0.113.1"))
	random := rand.New(rand.NewPCG(1, 2))
	harass := func(until time.Time) {
		for i := 0; time.Now().Before(until); i++ {
			switch random.IntN(10) {
			case 0:
				r.proxy.cut()
				time.Sleep(time.Duration(random.IntN(500)) * time.Millisecond)
				r.proxy.heal()
			case 1:
				e.change(paris, "bar1", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = int32(1000 + i%1000) })
			default:
				r.proxy.cutConnections()
			}
			time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond)
		}
	}
	settled := func() usage {
		e.eventually(30*time.Second, "the remote is up", d.shows(r, "up"))
		e.eventually(30*time.Second, "the mirror", r.mirrored("bar1", "203.0.113.1"))
		return d.usage()
	}
	harass(time.Now().Add(hardship(t) / 3)) // what is allocated once is allocated
	before := settled()
	harass(time.Now().Add(hardship(t)))
	var after usage
	e.eventually(time.Minute, "goroutines and files are as before", func() error {
		after = settled()
		if after.goroutines > before.goroutines+10 || after.files > before.files+5 {
			return fmt.Errorf("%+v, before that %+v", after, before)
		}
		return nil
	})
	if after.kilobytes > before.kilobytes*3/2+20<<10 {
		t.Errorf("%d KiB are resident, before that %d", after.kilobytes, before.kilobytes)
	}
	t.Logf("before %+v, after %v of cuts %+v", before, hardship(t), after)
}
