// Package secrets reads which remote clusters Secrets of the local cluster configure: their credentials and the keys of
// --remote. It only says what is configured; who runs the remotes is elsewhere.
//
// secrets.go decides, of the Secrets that exist, which remotes there are; watch.go follows the Secrets.
package secrets

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/remote"
)

// Configured is a remote that the flags or a Secret configure.
type Configured struct {
	remote.Spec
	// Problem is what is wrong with that: its Secret cannot be used, or another one of this name is not. Without a
	// kubeconfig in the Spec, nothing can be read of the remote; its mirrors stay.
	Problem error
}

// Set is all that is configured.
type Set struct {
	Remotes []Configured // those of the flags in their order, then those of Secrets by name
	// Misnamed lists the Secrets of which the label is not the name of a remote.
	Misnamed error
}

// Specs are those of the remotes.
func (s Set) Specs() (specs []remote.Spec) {
	for _, one := range s.Remotes {
		specs = append(specs, one.Spec)
	}
	return specs
}

// Problems are what is wrong with how remotes are configured, by their names.
func (s Set) Problems() map[string]error {
	problems := map[string]error{}
	for _, one := range s.Remotes {
		if one.Problem != nil {
			problems[one.Name] = one.Problem
		}
	}
	return problems
}

// Resolve decides which remotes there are, of those that the flags list and the Secrets. complete adds to a Spec what
// the flags say of all remotes, and finds what is wrong with it.
func Resolve(flags []remote.Spec, found []*corev1.Secret, complete func(*remote.Spec) error) Set {
	byName := map[string][]*corev1.Secret{}
	var set Set
	var misnamed []string
	for _, secret := range slices.SortedFunc(slices.Values(found), remote.CompareSecrets) {
		name := secret.Labels[remote.SecretLabel]
		if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
			misnamed = append(misnamed, fmt.Sprintf("Secret %v has the label %s=%.63s, which is not a valid remote name (a DNS label): change the label", cache.MetaObjectToName(secret), remote.SecretLabel, name))
			continue
		}
		byName[name] = append(byName[name], secret)
	}
	if len(misnamed) > 0 {
		set.Misnamed = errors.New(strings.Join(misnamed, "; "))
	}
	for _, spec := range flags {
		one := Configured{Spec: spec}
		if ignored := byName[spec.Name]; len(ignored) > 0 {
			one.Problem = fmt.Errorf("%s not used, because --remote %s configures the remote: remove one of them", names(ignored), spec.Name)
			delete(byName, spec.Name)
		}
		set.Remotes = append(set.Remotes, one)
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		of := byName[name]
		one := configuredBy(of[0], complete)
		if len(of) > 1 {
			ignored := fmt.Errorf("%s not used, because the older Secret %v configures the remote: delete one of them, or change its label %s", names(of[1:]), one.Secret, remote.SecretLabel)
			one.Problem = joined(one.Problem, ignored)
		}
		set.Remotes = append(set.Remotes, one)
	}
	return set
}

func joined(first, second error) error {
	if first == nil {
		return second
	}
	return fmt.Errorf("%w; %w", first, second)
}

// names are those of Secrets, as the subject of a sentence.
func names(all []*corev1.Secret) string {
	const most = 3
	var texts []string
	for _, secret := range all[:min(most, len(all))] {
		texts = append(texts, cache.MetaObjectToName(secret).String())
	}
	text := strings.Join(texts, ", ")
	switch {
	case len(all) == 1:
		return "Secret " + text + " is"
	case len(all) > most:
		text += fmt.Sprintf(" and %d more", len(all)-most)
	}
	return "Secrets " + text + " are"
}

// configuredBy is the remote that a Secret configures.
func configuredBy(secret *corev1.Secret, complete func(*remote.Spec) error) Configured {
	name := cache.MetaObjectToName(secret)
	spec, err := remote.ParseData(secret.Labels[remote.SecretLabel], secret.Data)
	spec.Secret = name
	if err == nil {
		err = complete(&spec)
	}
	kubeconfig := secret.Data[remote.KubeconfigKey]
	switch {
	case len(kubeconfig) == 0:
		err = errors.Join(err, errors.New("it has no "+remote.KubeconfigKey+": add one"))
	default:
		if _, wrong := remote.ParseKubeconfig(kubeconfig, spec.Context); wrong != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", remote.KubeconfigKey, wrong))
		}
	}
	if err != nil {
		// Its mirrors' names are known, and nobody else gets them.
		return Configured{remote.Spec{Name: spec.Name, Secret: name, Template: spec.Template, Local: spec.Local}, fmt.Errorf("Secret %v cannot be used: %s", name, strings.ReplaceAll(err.Error(), "\n", "; "))}
	}
	spec.Inline = remote.NewInline(kubeconfig)
	return Configured{Spec: spec}
}

// Trim leaves of a Secret what is needed of it.
func Trim(secret *corev1.Secret) *corev1.Secret {
	trimmed := &corev1.Secret{Data: secret.Data}
	trimmed.Namespace, trimmed.Name, trimmed.UID = secret.Namespace, secret.Name, secret.UID
	trimmed.ResourceVersion, trimmed.CreationTimestamp = secret.ResourceVersion, secret.CreationTimestamp
	trimmed.Labels = map[string]string{remote.SecretLabel: secret.Labels[remote.SecretLabel]}
	return trimmed
}
