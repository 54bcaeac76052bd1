package link

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/remote"
)

// What the daemon reads of a remote's Secret, in the namespace of --remotes-from: a label with the remote's name, a
// kubeconfig, and under each other key one of --remote.
const (
	remoteLabel   = remote.SecretLabel
	kubeconfigKey = remote.KubeconfigKey
)

// newSecret is the Secret that links a remote: its kubeconfig, and each of its keys. The values of a key are on lines of
// their own.
func newSecret(namespace, name, cluster string, keys Keys, credentials []byte) *corev1.Secret {
	data := map[string][]byte{kubeconfigKey: credentials}
	for _, key := range keys {
		data[key.Name] = []byte(strings.Join(keys.values(key.Name), "\n"))
	}
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{remoteLabel: cluster}},
		Data:       data,
	}
}

// secretName is the name of the Secret that a link creates.
func secretName(cluster string) string { return "service-mirror-remote-" + cluster }

// oldest is the Secret that counts where several have one remote's name.
func oldest(secrets []corev1.Secret) *corev1.Secret {
	if len(secrets) == 0 {
		return nil
	}
	first := slices.MinFunc(secrets, func(a, b corev1.Secret) int { return remote.CompareSecrets(&a, &b) })
	return &first
}

// keysOf are the keys in a Secret, by name. The value of namespaces= is a list with commas.
func keysOf(secret *corev1.Secret) (keys Keys) {
	for name, content := range secret.Data {
		if name == kubeconfigKey {
			continue
		}
		values := remote.DataValues(name, content)
		if name == "namespaces" {
			values = []string{strings.Join(values, ",")}
		}
		for _, value := range values {
			keys = append(keys, Key{name, value})
		}
	}
	return keys.sorted()
}

// extra are the keys of a Secret that another one does not have.
func extra(live, wanted *corev1.Secret) (names []string) {
	for name := range live.Data {
		if _, found := wanted.Data[name]; !found {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
