package plan

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
)

var update = flag.Bool("update", false, "write the outputs of the fixtures instead of comparing them")

// fixture is the first document of an input: what is known besides the objects that follow.
type fixture struct {
	Policy
	Ready       bool
	NotServed   []Kind
	Unknown     []Kind            // may not be read
	V1alpha2    []Kind            // served as that alone
	Taken       map[string]string // gateway ports of other Services: PORT/PROTOCOL to NAMESPACE/NAME
	Allocations []Allocation      // that the Service had
	Sets        bool              // ListenerSets are served
	SetsUnread  string            // why they cannot be read

	GatewayUnread bool // it is not known whether the Gateway exists
}

var now = time.Date(2026, 11, 26, 20, 0, 0, 0, time.UTC)

// readFixture makes of an input the policy and the snapshot.
func readFixture(t *testing.T, path string) (Policy, Snapshot) {
	t.Helper()
	policy, s, _ := readFixtureSets(t, path)
	return policy, s
}

// readFixtureSets also returns the ListenerSets.
func readFixtureSets(t *testing.T, path string) (Policy, Snapshot, []*unstructured.Unstructured) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f := fixture{Policy: Policy{
		Names: []string{"paris"}, Domain: "cluster.local", Targets: []Target{ToGatewayAPI}, Gateway: cache.NewObjectName("ingress", "public"),
		IngressClass: "traefik", Ports: PortRange{15000, 15999}, Records: "service-mirror", Aliases: "gateway-exports",
	}, Ready: true}
	documents := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
	if err := documents.Decode(&f); err != nil {
		t.Fatal(err)
	}
	s := Snapshot{Ready: f.Ready, Now: now, Served: map[Kind]Served{}, Key: cache.NewObjectName("default", "bar"),
		PortHolder: func(port gateway.PortNumber) cache.ObjectName {
			namespace, name, _ := strings.Cut(f.Taken[fmt.Sprintf("%d/%s", port.Number, port.Protocol)], "/")
			return cache.NewObjectName(namespace, name)
		}}
	for _, kind := range Kinds {
		s.Served[kind] = Served{Version: "v1", Known: true}
	}
	for _, kind := range f.V1alpha2 {
		s.Served[kind] = Served{Version: "v1alpha2", Known: true}
	}
	for _, kind := range f.NotServed {
		s.Served[kind] = Served{Known: true}
	}
	for _, kind := range f.Unknown {
		s.Served[kind] = Served{Err: "it is forbidden"}
	}
	var gw, class *unstructured.Unstructured
	var outside *Outside
	sets := Sets{Served: f.Sets, Known: f.SetsUnread == "", Err: f.SetsUnread, Namespace: f.Records, Labels: map[string]string{"kubernetes.io/metadata.name": f.Records}}
	for {
		var raw runtime.RawExtension
		obj := &unstructured.Unstructured{}
		if err := documents.Decode(&raw); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if err := obj.UnmarshalJSON(raw.Raw); err != nil {
			t.Fatal(err)
		}
		switch obj.GetKind() {
		case "Service":
			svc := &corev1.Service{}
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, svc); err != nil {
				t.Fatal(err)
			}
			switch {
			case cache.MetaObjectToName(svc) == f.GatewayService:
				outside, _, _ = ReadOutside(svc, nil, map[string]int32{"web": 8000})
			case svc.Namespace != f.Aliases:
				s.Service = svc
			default:
				s.Live = append(s.Live, obj)
			}
		case "Gateway":
			gw = obj
		case "GatewayClass":
			class = obj
		case "ListenerSet":
			sets.Objects = append(sets.Objects, obj)
		case "ConfigMap":
			s.Record = &corev1.ConfigMap{}
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, s.Record); err != nil {
				t.Fatal(err)
			}
		case "Namespace":
			s.Namespace = obj.GetLabels()
		default:
			s.Live = append(s.Live, obj)
		}
	}
	s.Gateway = ReadWithSets(f.Policy.Gateway, gw, class, sets)
	s.Gateway.Outside = outside
	if f.GatewayUnread {
		s.Gateway = Gateway{}
	}
	if s.Service != nil {
		s.Key = cache.MetaObjectToName(s.Service)
	}
	if len(f.Allocations) > 0 {
		d := decision{policy: f.Policy, snapshot: s, plan: Plan{Allocations: f.Allocations}}
		if s.Record, err = d.releasedRecord(); err != nil {
			t.Fatal(err)
		}
	}
	return f.Policy, s, sets.Objects
}

// TestFixtures has, for each input in testdata, all that is made of it: routes, record, problems and steps.
func TestFixtures(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) < 10 {
		t.Fatalf("%d inputs, %v", len(inputs), err)
	}
	for _, input := range inputs {
		t.Run(strings.TrimSuffix(filepath.Base(input), ".in.yaml"), func(t *testing.T) {
			policy, snapshot, sets := readFixtureSets(t, input)
			p := policy.Decide(snapshot)
			got := render(t, p) + renderSets(t, policy, snapshot.Gateway, sets, p)
			path := strings.TrimSuffix(input, ".in.yaml") + ".out.yaml"
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s\nIf this is right: go test ./gateway/publish/plan -update", got, want)
			}
		})
	}
}

// render writes a plan as YAML.
func render(t *testing.T, p Plan) string {
	var out strings.Builder
	document := func(value any) { writeDocument(t, &out, value) }
	for _, obj := range p.Desired {
		document(obj.Object)
	}
	if p.Record != nil {
		record := p.Record.DeepCopy()
		record.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}
		document(record)
	}
	summary := map[string]any{}
	for _, problem := range p.Problems {
		summary["problems"] = append(slices.Clip(toAny(summary["problems"])), string(problem.Reason)+": "+problem.Message)
	}
	for _, step := range p.Steps {
		summary["steps"] = append(slices.Clip(toAny(summary["steps"])), fmt.Sprintf("%s %s %s", step.Action, step.Ref.Kind, step.Ref.Name))
	}
	if p.After > 0 {
		summary["after"] = p.After.String()
	}
	document(summary)
	return out.String()
}

// renderSets writes what follows for ListenerSets as YAML; empty: nothing does.
func renderSets(t *testing.T, policy Policy, g Gateway, live []*unstructured.Unstructured, p Plan) string {
	steps, conflicts := policy.PlanSets(g, live, inUse(p.Allocations), nil)
	var out strings.Builder
	summary := map[string]any{}
	for _, step := range steps {
		if step.Action != Delete {
			writeDocument(t, &out, step.Object.Object)
		}
		summary["sets"] = append(slices.Clip(toAny(summary["sets"])), fmt.Sprintf("%s %s %s", step.Action, step.Ref.Kind, step.Ref.Name))
	}
	if conflicts != nil {
		summary["conflicts"] = conflicts.Error()
	}
	if len(summary) > 0 {
		writeDocument(t, &out, summary)
	}
	return out.String()
}

// inUse are the gateway ports of allocations that are not released.
func inUse(all []Allocation) (ports []gateway.PortNumber) {
	for _, a := range all {
		if a.Released.IsZero() {
			ports = append(ports, a.Number())
		}
	}
	return ports
}

func writeDocument(t *testing.T, out *strings.Builder, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var plain any
	if err := json.Unmarshal(text, &plain); err != nil {
		t.Fatal(err)
	}
	out.WriteString("---\n")
	write(out, plain, "")
}

func toAny(list any) []any { all, _ := list.([]any); return all }

var plainText = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9./_-]*$`)

// write writes a value as YAML, with the keys of maps in order.
func write(to *strings.Builder, value any, indent string) {
	scalar := func(value any) string {
		if text, ok := value.(string); ok && plainText.MatchString(text) && text != "true" && text != "false" && text != "True" && text != "False" {
			return text
		}
		var buffer bytes.Buffer
		encoder := json.NewEncoder(&buffer)
		encoder.SetEscapeHTML(false)
		encoder.Encode(value)
		return strings.TrimSpace(buffer.String())
	}
	nested := func(value any, inner string) {
		switch value := value.(type) {
		case map[string]any:
			if len(value) > 0 {
				to.WriteString("\n")
				write(to, value, inner)
				return
			}
		case []any:
			if len(value) > 0 {
				to.WriteString("\n")
				write(to, value, inner)
				return
			}
		}
		to.WriteString(" " + scalar(value) + "\n")
	}
	switch value := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(value)) {
			to.WriteString(indent + key + ":")
			nested(value[key], indent+"  ")
		}
	case []any:
		for _, item := range value {
			if object, ok := item.(map[string]any); ok {
				var inner strings.Builder
				write(&inner, object, indent+"  ")
				to.WriteString(indent + "- " + strings.TrimPrefix(inner.String(), indent+"  "))
				continue
			}
			to.WriteString(indent + "- " + scalar(item) + "\n")
		}
	}
}
