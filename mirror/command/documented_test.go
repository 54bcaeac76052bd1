package command

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// A key is looked up where the flags are, in the help of --remote, and in that of link.
func TestEveryKeyOfRemoteIsDocumented(t *testing.T) {
	_, err := remote.ParseSpec("paris=a,no-such-key=b")
	if err == nil {
		t.Fatal("a key that does not exist is accepted")
	}
	_, listed, found := strings.Cut(err.Error(), "the keys are ")
	keys := regexp.MustCompile(`[-a-z]+=`).FindAllString(listed, -1)
	if !found || len(keys) < 10 {
		t.Fatalf("the error does not list the keys: %v", err)
	}
	text, help := page(t, guides+"/flags.md"), daemonFlags().Lookup("remote").Usage
	for _, key := range keys {
		own := regexp.MustCompile(`(^|[^-a-z])` + key)
		if !strings.Contains(text, "`"+key) {
			t.Errorf("flags.md does not have the key %s", key)
		}
		if !own.MatchString(help) {
			t.Errorf("the help of --remote does not have the key %s", key)
		}
		if key != "context=" && !own.MatchString(linkUsage) { // link refuses it
			t.Errorf("the help of link does not have the key %s", key)
		}
	}
}

// The reasons of Events are in the guide on operations. They are found in the source, so that one that is added
// cannot be missed.
func TestOperationsPageHasEveryEvent(t *testing.T) {
	all := map[string][]string{ // by the expressions that events.go and its callers have
		`string(p.Reason)`:   asStrings(slices.Concat(plan.Reasons, plan.PublisherReasons, plan.FailoverReasons)),
		`p.Reason()`:         constants(t, "remote", regexp.MustCompile(`^(Remote|Gateway)[A-Z]\w+$`)),
		`what + "Recovered"`: {"RemoteRecovered", "GatewayRecovered"},
		`reason`:             nil, // what OfService is called with
	}
	if len(all[`p.Reason()`]) < 3 {
		t.Fatalf("the reasons of remotes are not found: %q", all[`p.Reason()`])
	}
	found := map[string]bool{}
	text := page(t, guides+"/operations.md")
	for _, name := range files(t, ".", ".go") {
		if strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "testdata/") {
			continue
		}
		for _, expression := range eventReasons(t, name) {
			reasons, known := all[expression]
			if literal, err := strconv.Unquote(expression); err == nil {
				reasons, known = []string{literal}, true
			}
			if !known {
				t.Errorf("%s makes Events with the reason %s: add to this test which ones that can be", name, expression)
			}
			found[expression] = true
			for _, reason := range reasons {
				if !strings.Contains(text, "`"+reason+"`") {
					t.Errorf("operations.md does not have the Event %s of %s", reason, name)
				}
			}
		}
	}
	for expression := range all {
		if !found[expression] {
			t.Errorf("no Event has the reason %s: are the calls found that make Events?", expression)
		}
	}
	if !found[`"FailedOver"`] {
		t.Error("the Event FailedOver is not found")
	}
}

// eventReasons are the expressions that calls in a file give as an Event's reason.
func eventReasons(t *testing.T, name string) (found []string) {
	t.Helper()
	at := map[string]struct{ arguments, reason int }{"event": {4, 2}, "OfService": {3, 1}}
	ast.Inspect(parsed(t, name), func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		method, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if of, ok := at[method.Sel.Name]; ok && len(call.Args) == of.arguments {
			found = append(found, types.ExprString(call.Args[of.reason]))
		}
		if name != "mirror/report/events.go" && slices.Contains([]string{"Eventf", "AnnotatedEventf"}, method.Sel.Name) {
			t.Errorf("%s makes an Event by itself, and not with mirror/report", name)
		}
		return true
	})
	return found
}

// constants are the values of a package's string constants, without those that do not match.
func constants(t *testing.T, directory string, matching *regexp.Regexp) (found []string) {
	t.Helper()
	for _, name := range files(t, directory, ".go") {
		for _, declaration := range parsed(t, name).Decls {
			general, ok := declaration.(*ast.GenDecl)
			if !ok || general.Tok != token.CONST {
				continue
			}
			ast.Inspect(general, func(n ast.Node) bool {
				if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
					if value, err := strconv.Unquote(literal.Value); err == nil && matching.MatchString(value) {
						found = append(found, value)
					}
				}
				return true
			})
		}
	}
	return found
}

func parsed(t *testing.T, name string) *ast.File {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), name, page(t, name), 0)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func asStrings(reasons []plan.Reason) (all []string) {
	for _, reason := range reasons {
		all = append(all, string(reason))
	}
	return all
}

// A test that a guide names as evidence exists.
func TestTestsThatAreNamedExist(t *testing.T) {
	exist := map[string]bool{}
	for _, name := range files(t, ".", ".go") {
		if strings.HasSuffix(name, "_test.go") {
			for _, test := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(page(t, name), -1) {
				exist[test[1]] = true
			}
		}
	}
	named := 0
	for _, name := range pages(t) {
		for _, test := range regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(page(t, name), -1) {
			if named++; !exist[test] {
				t.Errorf("%s names %s, which does not exist", name, test)
			}
		}
	}
	if named < 20 {
		t.Errorf("the guides name %d tests: is the expression right?", named)
	}
}

// The tables of flags have the defaults that the help has.
func TestFlagsPageHasEveryDefault(t *testing.T) {
	daemon, publish, _ := strings.Cut(page(t, guides+"/flags.md"), "\n## Publish\n")
	cfg, _ := parse(nil)
	p, _ := parsePublish(nil)
	compared := 0
	for table, flags := range map[string]*pflag.FlagSet{daemon: cfg.flags, publish: p.flags} {
		table = strings.ReplaceAll(table, `\|`, "")
		flags.VisitAll(func(f *pflag.Flag) {
			row := regexp.MustCompile("(?m)^\\| `--" + regexp.QuoteMeta(f.Name) + "[^`,]*` \\| ([^|]*) \\|").FindStringSubmatch(table)
			if row == nil || slices.Contains([]string{"", "[]", "0s"}, f.DefValue) {
				return // in a row of several, or none
			}
			if compared++; !strings.Contains(row[1], "`"+f.DefValue+"`") {
				t.Errorf("flags.md has the default %q of --%s, which is %q", row[1], f.Name, f.DefValue)
			}
		})
	}
	if compared < 15 {
		t.Errorf("%d defaults are compared: is the expression right?", compared)
	}
}

// Pages and manifests use the words of the Kubernetes documentation. What a pattern finds is to be written differently:
// DESIGN's list of words to avoid, as far as they have no other meaning.
func TestPagesAreInPlainEnglish(t *testing.T) {
	avoid := regexp.MustCompile(`(?i)\b(mend(s|ed|ing)?|anew|strangers?|not well|unwell|stands?|leads? to|led to|doubt(s|ed)?|what is of|ask(s|ed)? for)\b`)
	for text, want := range map[string]bool{"a foreign Service stands there": true, "It leads to Paris": true, "a standby, mended": true, "a leader": false} {
		if avoid.MatchString(text) != want {
			t.Fatalf("%q: want %v", text, want)
		}
	}
	for _, name := range append([]string{"README.md"}, files(t, "deploy", ".md", ".yaml", ".txt", ".conf", ".cfg", ".lua")...) {
		for i, line := range strings.Split(page(t, name), "\n") {
			if found := avoid.FindString(line); found != "" && !strings.Contains(line, "message: ") {
				t.Errorf("%s:%d has %q", name, i+1, found)
			}
		}
	}
}

// withoutAlert are the reasons that no alert watches by itself, and why.
var withoutAlert = map[plan.Reason]string{
	plan.IsMirror:           "the exporting team decides which Services it labels",
	plan.SystemService:      "the same",
	plan.ExternalName:       "the same",
	plan.Headless:           "the same",
	plan.NoTCPPort:          "the same",
	plan.NoReadyEndpoint:    "the remote's own monitoring watches its pods",
	plan.Renaming:           "it ends by itself, or the new mirror has another reason",
	plan.ClusterIPLost:      "it has happened, and cannot be undone",
	plan.AnnotationsRemoved: "the same",
	plan.TooManyDeletes:     "the mirrors are orphans: ServiceMirrorOrphans",
	plan.NotReached:         "ServiceMirrorNotReached has it by its result",
}

// TestEveryReasonHasAnAlert: what a person must fix is an alert; what is none is on a list, here and in the guide. Of
// Services that fail over, all reasons are alerts.
func TestEveryReasonHasAnAlert(t *testing.T) {
	rules := page(t, "deploy/monitoring/alerts.yaml")
	var alerted []plan.Reason
	for _, selected := range regexp.MustCompile(`service_mirror_problems\{reason=~"([A-Za-z|]+)"`).FindAllStringSubmatch(rules, -1) {
		for reason := range strings.SplitSeq(selected[1], "|") {
			alerted = append(alerted, plan.Reason(reason))
		}
	}
	all := slices.Concat(plan.Reasons, plan.PublisherReasons)
	_, listed, found := strings.Cut(page(t, guides+"/operations.md"), "\nThere is no alert for ")
	listed, _, _ = strings.Cut(listed, "\n\n")
	if !found || len(alerted) == 0 {
		t.Fatalf("operations.md lists what has no alert: %v; %d reasons with an alert are found", found, len(alerted))
	}
	for _, reason := range all {
		times := 0
		for _, other := range alerted {
			if other == reason {
				times++
			}
		}
		_, none := withoutAlert[reason]
		switch named := strings.Contains(listed, "`"+string(reason)+"`"); {
		case times == 0 && !none:
			t.Errorf("no alert has the reason %s: add it to one, or to withoutAlert with the cause", reason)
		case times > 1 || times == 1 && none:
			t.Errorf("the reason %s is in %d alerts, and in withoutAlert: %v", reason, times, none)
		case named != none:
			t.Errorf("operations.md lists %s among those without an alert: %v, want %v", reason, named, none)
		}
	}
	for _, reason := range alerted {
		if !slices.Contains(all, reason) {
			t.Errorf("an alert has the reason %s, which does not exist", reason)
		}
	}
	for reason := range withoutAlert {
		if !slices.Contains(all, reason) {
			t.Errorf("withoutAlert has the reason %s, which does not exist", reason)
		}
	}
	if !strings.Contains(rules, "(service_mirror_failover_problems)") {
		t.Error("no alert has all reasons of Services that fail over")
	}
}
