package harness

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// What the daemon may do in its own cluster. RangeRules are for the cluster's own address
// ranges, without which it does its work too; SliceRules are needed besides with
// --endpoints-api=endpointslices.
var (
	CoreRules = []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"services", "endpoints"}, Verbs: []string{"list", "watch", "create", "update", "delete"}},
		{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"list", "watch", "create"}},
		{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: []string{"list", "watch", "delete"}},
		{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
		{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"ipaddresses"}, Verbs: []string{"get"}},
	}
	RangeRules = []rbacv1.PolicyRule{
		{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"servicecidrs"}, Verbs: []string{"list", "watch"}},
		{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"list", "watch"}},
	}
	SliceRules = []rbacv1.PolicyRule{
		{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: []string{"create", "update"}},
		{APIGroups: []string{""}, Resources: []string{"endpoints"}, Verbs: []string{"get"}},
	}
)

// RemoteRules are what the daemon may do in a remote cluster, where no ConfigMap reserves ports.
var RemoteRules = []rbacv1.PolicyRule{
	{APIGroups: []string{""}, Resources: []string{"services"}, Verbs: []string{"list", "watch"}},
	{APIGroups: []string{""}, Resources: []string{"namespaces"}, ResourceNames: []string{"kube-system"}, Verbs: []string{"get"}},
}

// Account is a ServiceAccount.
type Account struct{ Namespace, Name string }

// CreateAccount makes a ServiceAccount without permissions.
func (c *Cluster) CreateAccount(ctx context.Context, a Account) error {
	_, err := c.CoreV1().ServiceAccounts(a.Namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: a.Name}}, metav1.CreateOptions{})
	return err
}

// Allow makes a ClusterRole with the ServiceAccount's name and binds it.
func (c *Cluster) Allow(ctx context.Context, a Account, rules []rbacv1.PolicyRule) error {
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: a.Name}, Rules: rules}
	if _, err := c.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return err
	}
	return c.Bind(ctx, a, a.Name)
}

// Bind gives the ServiceAccount a ClusterRole, in a binding with the ServiceAccount's name.
func (c *Cluster) Bind(ctx context.Context, a Account, role string) error {
	_, err := c.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: a.Name},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: a.Namespace, Name: a.Name}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
	}, metav1.CreateOptions{})
	return err
}

// CreateSecretToken makes a token Secret of the ServiceAccount and returns the token, which is
// valid until the Secret is deleted.
func (c *Cluster) CreateSecretToken(ctx context.Context, a Account, secret string) (string, error) {
	secrets := c.CoreV1().Secrets(a.Namespace)
	_, err := secrets.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: secret, Annotations: map[string]string{corev1.ServiceAccountNameKey: a.Name}},
		Type:       corev1.SecretTypeServiceAccountToken,
	}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	var token string
	err = Eventually(time.Minute, "a token", func() error { // which a controller adds
		got, err := secrets.Get(ctx, secret, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if token = string(got.Data[corev1.ServiceAccountTokenKey]); token == "" {
			return fmt.Errorf("Secret %s has no token", secret)
		}
		return nil
	})
	return token, err
}

// RequestToken returns a token of the ServiceAccount that is valid for a day.
func (c *Cluster) RequestToken(ctx context.Context, a Account) (string, error) {
	seconds := int64(24 * 60 * 60)
	token, err := c.CoreV1().ServiceAccounts(a.Namespace).CreateToken(ctx, a.Name,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("cluster %s: token of ServiceAccount %s/%s: %w", c.Name, a.Namespace, a.Name, err)
	}
	return token.Status.Token, nil
}

// Credentials are what is needed to reach an API server.
type Credentials struct {
	Server string // URL
	CA     []byte // PEM
	Token  string
}

// WriteKubeconfig writes a kubeconfig of credentials.
func WriteKubeconfig(path string, of Credentials) error {
	return clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"c": {Server: of.Server, CertificateAuthorityData: of.CA}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"u": {Token: of.Token}},
		Contexts:       map[string]*clientcmdapi.Context{"c": {Cluster: "c", AuthInfo: "u"}},
		CurrentContext: "c",
	}, path)
}

// WriteKubeconfig writes a kubeconfig of the cluster with a token.
func (c *Cluster) WriteKubeconfig(path, token string) error {
	return WriteKubeconfig(path, Credentials{c.Config.Host, c.Config.CAData, token})
}
