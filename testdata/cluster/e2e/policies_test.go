package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apimachinery/pkg/util/yaml"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/cel/environment"
)

// The oldest supported Kubernetes accepts each expression of the policies in deploy/. In new objects, an API server accepts only
// what the version before it can evaluate, too.
func TestPoliciesCompileInTheOldestKubernetes(t *testing.T) {
	before := oldestVersion(t).SubtractMinor(1)
	files, err := filepath.Glob("../../../deploy/*/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	nested, err := filepath.Glob("../../../deploy/*/*/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	policies := 0
	for _, file := range append(files, nested...) {
		for _, policy := range readPolicies(t, file) {
			policies++
			for _, problem := range compile(t, before, policy) {
				t.Errorf("%s: %s: %v", file, policy.Name, problem)
			}
		}
	}
	if policies < 5 {
		t.Errorf("only %d policies were found", policies)
	}
}

func TestCompileFindsWhatIsTooNew(t *testing.T) {
	policy := &admissionv1.ValidatingAdmissionPolicy{Spec: admissionv1.ValidatingAdmissionPolicySpec{
		Variables:   []admissionv1.Variable{{Name: "all", Expression: "dyn([[1]]).flatten()"}},
		Validations: []admissionv1.Validation{{Expression: "variables.all.size() == 1"}},
	}}
	if problems := compile(t, oldestVersion(t).SubtractMinor(1), policy); len(problems) == 0 {
		t.Error("flatten, which came with Kubernetes 1.34, was not found")
	}
}

// oldestVersion is that of oldest.mod.
func oldestVersion(t *testing.T) *version.Version {
	t.Helper()
	content, err := os.ReadFile("../oldest.mod")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`k8s\.io/kubernetes v1\.(\d+)\.`).FindSubmatch(content)
	if found == nil {
		t.Fatal("oldest.mod names no version of Kubernetes")
	}
	minor, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	return version.MajorMinor(1, uint(minor))
}

func readPolicies(t *testing.T, file string) (all []*admissionv1.ValidatingAdmissionPolicy) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	documents := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
	for {
		var policy admissionv1.ValidatingAdmissionPolicy
		switch err := documents.Decode(&policy); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatalf("%s: %v", file, err)
		}
		if policy.Kind == "ValidatingAdmissionPolicy" {
			all = append(all, &policy)
		}
	}
}

// compile compiles the expressions of a policy with what a version of Kubernetes has.
func compile(t *testing.T, at *version.Version, policy *admissionv1.ValidatingAdmissionPolicy) (problems []error) {
	t.Helper()
	compiler, err := plugincel.NewCompositedCompiler(environment.MustBaseEnvSet(at))
	if err != nil {
		t.Fatal(err)
	}
	options := plugincel.OptionalVariableDeclarations{HasParams: policy.Spec.ParamKind != nil, HasAuthorizer: true}
	check := func(expression string, result plugincel.CompilationResult) {
		if result.Error != nil {
			problems = append(problems, fmt.Errorf("%s: %w", expression, result.Error))
		}
	}
	for _, condition := range policy.Spec.MatchConditions {
		check(condition.Name, compiler.CompileCELExpression((*matchconditions.MatchCondition)(&condition), options, environment.NewExpressions))
	}
	for _, variable := range policy.Spec.Variables {
		check(variable.Name, compiler.CompileAndStoreVariable(&validating.Variable{Name: variable.Name, Expression: variable.Expression}, options, environment.NewExpressions))
	}
	for _, validation := range policy.Spec.Validations {
		check(validation.Expression, compiler.CompileCELExpression(&validating.ValidationCondition{Expression: validation.Expression}, options, environment.NewExpressions))
		if validation.MessageExpression != "" {
			check(validation.MessageExpression, compiler.CompileCELExpression(&validating.MessageExpressionCondition{MessageExpression: validation.MessageExpression}, options, environment.NewExpressions))
		}
	}
	return problems
}
