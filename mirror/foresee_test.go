package mirror

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/status"
)

// foreseen has two new mirrors in one new namespace, a changed one, one that goes, and one that cannot be.
func foreseen() Foreseen {
	object := func(name string, port int32) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: port}}}}
	}
	created := func(name string) plan.Plan {
		return plan.Plan{Key: cache.NewObjectName("shop", name), Cluster: "paris", Steps: []plan.Step{
			{Action: plan.CreateNamespace}, {Action: plan.CheckForeignEndpoints}, {Action: plan.Create, Object: object(name, 80)}, {Action: plan.CheckSlices}}}
	}
	return Foreseen{Unknown: errors.Join(errors.New("remote berlin is not known"), errors.New("remote rome is not known")), Plans: []plan.Plan{
		created("a-paris"), created("b-paris"),
		{Key: cache.NewObjectName("shop", "c-paris"), Cluster: "paris", Steps: []plan.Step{{Action: plan.Update, Object: object("c-paris", 81), Live: object("c-paris", 80)}}},
		{Key: cache.NewObjectName("shop", "d-paris"), Cluster: "paris", Steps: []plan.Step{{Action: plan.Delete, Object: object("d-paris", 80)}, {Action: plan.DeleteLeftover, Object: object("d-paris-x1", 80)}}},
		{Key: cache.NewObjectName("shop", "e-paris"), Problems: []plan.Problem{{Reason: plan.Conflict, Cluster: "paris", Message: "a foreign Service"}}},
	}}
}

// A namespace that two mirrors need is created once; steps that write nothing do not count.
func TestForeseenCounts(t *testing.T) {
	if got, want := foreseen().Counts().String(), "3 create, 1 update, 2 delete"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if (Foreseen{Plans: foreseen().Plans[4:]}).Counts().Any() {
		t.Error("a problem is no difference")
	}
}

// A slice that is replaced is deleted and created, in the text, in the counts and in JSON.
func TestForeseenReplacement(t *testing.T) {
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "a.paris.ipv4"}}
	f := Foreseen{Failovers: []plan.FailoverPlan{{Key: cache.NewObjectName("shop", "a"), Steps: []plan.SliceStep{{Action: plan.Create, Remote: "paris", Slice: slice, Replaces: slice}}}}}
	var text, encoded bytes.Buffer
	f.Print(&text, "london")
	if err := f.WriteJSON(&encoded, "london"); err != nil {
		t.Fatal(err)
	}
	if got := text.String(); !strings.Contains(got, "delete EndpointSlice shop/a.paris.ipv4") || !strings.HasSuffix(got, "\n1 create, 0 update, 1 delete\n") {
		t.Errorf("it prints %q", got)
	}
	if got := encoded.String(); strings.Index(got, `"delete"`) < 0 || strings.Index(got, `"action": "delete"`) > strings.Index(got, `"action": "create"`) || !strings.Contains(got, `"delete": 1`) {
		t.Errorf("as JSON it is %s", got)
	}
}

func TestForeseenIsPrinted(t *testing.T) {
	var out bytes.Buffer
	foreseen().Print(&out, "london")
	if !strings.HasSuffix(out.String(), "\n3 create, 1 update, 2 delete\n") || !strings.Contains(out.String(), "-  - port: 80\n+  - port: 81\n") ||
		!strings.Contains(out.String(), "! mirror shop/e-paris in london for remote paris: Conflict: a foreign Service\n") {
		t.Errorf("got\n%s", &out)
	}
	out.Reset()
	Foreseen{}.Print(&out, "london")
	if out.String() != "0 create, 0 update, 0 delete\n" {
		t.Errorf("of nothing it prints %q", &out)
	}
}

func TestForeseenAsJSON(t *testing.T) {
	var out bytes.Buffer
	if err := foreseen().WriteJSON(&out, "london"); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Local                  string
		Create, Update, Delete int
		Steps                  []struct {
			Action, Kind, Namespace, Name, Remote string
			Before, After                         *corev1.Service
		}
		Problems []struct{ Mirror, Remote, Reason, Message string }
		Unknown  []string
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	var steps []string
	for _, s := range got.Steps {
		steps = append(steps, s.Action+" "+s.Kind+" "+s.Namespace+"/"+s.Name)
	}
	const want = "create Namespace /shop, create Service shop/a-paris, create Service shop/b-paris, update Service shop/c-paris, delete Service shop/d-paris, delete EndpointSlice shop/d-paris-x1"
	if strings.Join(steps, ", ") != want || got.Local != "london" || got.Create != 3 || got.Update != 1 || got.Delete != 2 {
		t.Errorf("got %s\nwant %s\n%s", strings.Join(steps, ", "), want, &out)
	}
	if got.Steps[3].Before.Spec.Ports[0].Port != 80 || got.Steps[3].After.Spec.Ports[0].Port != 81 || got.Steps[1].Before != nil || got.Steps[4].After != nil {
		t.Errorf("the objects are wrong:\n%s", &out)
	}
	if len(got.Problems) != 1 || got.Problems[0].Reason != "Conflict" || len(got.Unknown) != 2 || got.Unknown[1] != "remote rome is not known" {
		t.Errorf("got %+v, %q", got.Problems, got.Unknown)
	}
}

// What a standby works out has the problems that a leader would find, and writes nothing.
func TestForeseenOverview(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.standby = true
		w.start()
		foreign := mirrorOfBar().Service
		foreign.Name, foreign.Labels = "taken-paris", nil
		w.server.put(foreign)
		w.remotes["paris"].export(named("default", "taken"))
		w.wait(time.Minute)
		page, err := w.controller.ForeseenOverview(w.T.Context(), nil, "london")
		if err != nil {
			w.Fatal(err)
		}
		summary := status.Summarize(&page, status.Source{From: status.FromClusters})
		if len(summary.Causes) != 1 || summary.Causes[0].Reason != string(plan.Conflict) || summary.Healthy || summary.Remotes[0].Counts[status.Conflict] != 1 {
			w.Errorf("got %+v", summary)
		}
		w.expect()
	})
}
