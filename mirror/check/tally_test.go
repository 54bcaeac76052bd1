package check

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
)

func tallied(t *testing.T, add func(t *Tally)) (*Report, []string) {
	t.Helper()
	var out bytes.Buffer
	r := NewReport("paris", &out)
	tally := Tally{Done: "mirrored"}
	add(&tally)
	r.Exports(tally)
	return r, strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
}

func problem(reason plan.Reason, message string) []plan.Problem {
	return []plan.Problem{{Reason: reason, Message: message}}
}

// A cluster with hundreds of exports has a line for each cause, not for each export.
func TestManyExportsAreFewLines(t *testing.T) {
	r, lines := tallied(t, func(tally *Tally) {
		for i := range 310 {
			service := cache.NewObjectName("shop", fmt.Sprintf("s%03d", i))
			switch {
			case i < 200:
				tally.Add(service, problem(plan.NamespaceMissing, "namespace shop does not exist"))
			case i < 260: // sixty causes
				tally.Add(service, problem(plan.PortNotServed, fmt.Sprintf("port %d is not served", i)))
			case i == 260:
				tally.Add(service, problem(plan.Conflict, "a foreign Service has the name"))
			default:
				tally.Add(service, nil)
			}
		}
	})
	want := []string{
		"! paris: 200 exported Services will not be mirrored: NamespaceMissing: shop/s000, shop/s001, shop/s002 and 197 more: namespace shop does not exist",
		"! paris: shop/s260 will not be mirrored: a foreign Service has the name",
		"! paris: 60 exported Services will be mirrored, but not all of their ports will be reachable: PortNotServed: shop/s200, shop/s201, shop/s202 and 57 more: 60 causes, for example shop/s200: port 200 is not served",
		"+ paris: 109 of 310 exported Services can be mirrored",
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	if len(r.findings[0].Services) != 200 || len(r.findings[2].Services) != 60 {
		t.Errorf("not all Services are in the findings: %d, %d", len(r.findings[0].Services), len(r.findings[2].Services))
	}
}

func TestFewCausesOfOneReasonHaveALineEach(t *testing.T) {
	_, lines := tallied(t, func(tally *Tally) {
		for i, message := range []string{"a", "b", "a", "c"} {
			tally.Add(cache.NewObjectName("shop", fmt.Sprint(i)), problem(plan.NamespaceMissing, message))
		}
	})
	want := "! paris: 2 exported Services will not be mirrored: NamespaceMissing: shop/0, shop/2: a\n! paris: shop/1 will not be mirrored: b\n! paris: shop/3 will not be mirrored: c"
	if got := strings.Join(lines[:3], "\n"); got != want || len(lines) != 4 {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), want)
	}
}

func TestResult(t *testing.T) {
	fill := func(warnings, errors int) Result {
		r := NewReport("paris", new(bytes.Buffer))
		r.OK("fine")
		for range warnings {
			r.Warn("a warning")
		}
		for range errors {
			r.Fail("an error")
		}
		return ResultOf(NewReport("london", new(bytes.Buffer)), r)
	}
	for _, test := range []struct {
		warnings, errors int
		lax, strict      string
	}{
		{0, 0, "", ""},
		{1, 0, "", "check failed: 0 errors, 1 warning"},
		{0, 1, "check failed: 1 error, 0 warnings", "check failed: 1 error, 0 warnings"},
		{2, 3, "check failed: 3 errors, 2 warnings", "check failed: 3 errors, 2 warnings"},
	} {
		result := fill(test.warnings, test.errors)
		for strict, want := range map[bool]string{false: test.lax, true: test.strict} {
			got := ""
			if err := result.Err(strict); err != nil {
				got = err.Error()
			}
			if got != want {
				t.Errorf("%d warnings, %d errors, strict %v: %q, want %q", test.warnings, test.errors, strict, got, want)
			}
		}
	}
	var out bytes.Buffer
	if err := fill(1, 1).WriteJSON(&out); err != nil {
		t.Fatal(err)
	}
	var read struct {
		Clusters []struct {
			Name     string
			Findings []struct{ Level, Message string }
		}
		Errors, Warnings int
	}
	if err := json.Unmarshal(out.Bytes(), &read); err != nil || read.Errors != 1 || read.Warnings != 1 || len(read.Clusters) != 2 ||
		read.Clusters[0].Findings == nil || len(read.Clusters[1].Findings) != 3 || read.Clusters[1].Findings[1].Level != "warning" {
		t.Errorf("%v, %+v", err, read)
	}
}
