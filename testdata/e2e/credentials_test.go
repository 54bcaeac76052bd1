package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// mount is a directory with a Secret, as the kubelet keeps it: each file is a link
// into ..data, itself a link to a directory that is never written again. A change
// swaps the one link.
type mount struct {
	*env
	dir string
	n   int
}

func (e *env) mount(files map[string]string) *mount {
	e.Helper()
	m := &mount{env: e, dir: e.TempDir()}
	m.swap(files)
	return m
}

func (m *mount) path(file string) string { return filepath.Join(m.dir, file) }

func (m *mount) swap(files map[string]string) {
	m.Helper()
	m.n++
	old, _ := os.Readlink(m.path("..data"))
	now := fmt.Sprintf("..%d", m.n)
	m.must(os.Mkdir(m.path(now), 0o700))
	for file, content := range files {
		m.must(os.WriteFile(m.path(filepath.Join(now, file)), []byte(content), 0o600))
	}
	m.must(os.Symlink(now, m.path("..data_tmp")))
	m.must(os.Rename(m.path("..data_tmp"), m.path("..data")))
	for file := range files {
		if err := os.Symlink(filepath.Join("..data", file), m.path(file)); !os.IsExist(err) {
			m.must(err)
		}
	}
	if old != "" {
		m.must(os.RemoveAll(m.path(old)))
	}
}

// config is a kubeconfig for the remote, as text; change may make it another.
func (r *remote) config(change ...func(*clientcmdapi.Cluster, *clientcmdapi.AuthInfo)) string {
	r.env.Helper()
	cluster := &clientcmdapi.Cluster{Server: "https://" + r.proxy.address, CertificateAuthorityData: r.proxy.ca}
	user := &clientcmdapi.AuthInfo{Token: r.token}
	for _, f := range change {
		f(cluster, user)
	}
	text, err := clientcmd.Write(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{"c": cluster}, AuthInfos: map[string]*clientcmdapi.AuthInfo{"u": user},
		Contexts: map[string]*clientcmdapi.Context{"c": {Cluster: "c", AuthInfo: "u"}}, CurrentContext: "c",
	})
	r.env.must(err)
	return string(text)
}

// revoke deletes a token, and waits until the API server refuses it.
func (r *remote) revoke(secret, token string) {
	r.env.Helper()
	r.env.must(r.CoreV1().Secrets(r.env.id).Delete(r.env.ctx, secret, metav1.DeleteOptions{}))
	cfg := rest.AnonymousClientConfig(r.cluster.config)
	cfg.BearerToken = token
	client, err := kubernetes.NewForConfig(cfg)
	r.env.must(err)
	r.env.eventually(time.Minute, "the old token is refused", func() error {
		_, err := client.CoreV1().Namespaces().Get(r.env.ctx, "kube-system", metav1.GetOptions{})
		if !apierrors.IsUnauthorized(err) {
			return fmt.Errorf("the answer is %v", err)
		}
		return nil
	})
	r.proxy.cutConnections() // an open watch outlives its token for a while
}

// rotated checks that nothing has been written since a mark, and that the next
// change arrives.
func (r *remote) rotated(since auditMark, port int32) {
	r.env.Helper()
	r.env.noWrites(since)
	r.env.change(r.cluster, "bar", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = port })
	r.env.soon("the next change", r.mirrored("bar", "203.0.113.1"))
}

func TestMountedCredentialsRotate(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	m := e.mount(map[string]string{"kubeconfig": r.config()})
	r.kubeconfig = m.path("kubeconfig")
	d := e.daemon([]*remote{r}, listening...)
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1"), d.shows(r, "up"))
	before, start := e.identities(), london.mark(t)

	// The new one first, then the old one is revoked.
	since := london.mark(t)
	old := r.token
	r.token = e.token(paris, "second")
	swapped := time.Now()
	m.swap(map[string]string{"kubeconfig": r.config()})
	e.soon("the new token is used", func() error { return uses(r, old, swapped, d) })
	r.revoke("token", old)
	e.stays("the mirror", r.mirrored("bar", "203.0.113.1"))
	e.must(d.shows(r, "up")())
	r.rotated(since, 81)
	if n := d.logged("mirrors are kept unchanged", "nauthorized"); n > 0 {
		t.Errorf("the daemon was refused %d times, though it had the new token in time", n)
	}

	// The old one is revoked first: updates stop until the new one comes.
	since = london.mark(t)
	r.revoke("second", r.token)
	e.logs(d, "mirrors are kept unchanged", r.name, "nauthorized")
	e.soon("the cause", d.shows(r, "down", "nauthorized"), d.measures(map[string]float64{r.up(): 0}))
	e.stays("the mirror", r.mirrored("bar", "203.0.113.1"))
	r.token = e.token(paris, "third")
	m.swap(map[string]string{"kubeconfig": r.config()})
	e.soon("all is healthy", d.shows(r, "up"), d.measures(map[string]float64{r.up(): 1}))
	r.rotated(since, 82)

	// Another server, with another CA.
	since = london.mark(t)
	gone := r.proxy
	r.proxy = newProxy(t, paris)
	m.swap(map[string]string{"kubeconfig": r.config()})
	e.soon("the old connection closed", func() error {
		if n := gone.open(); n > 0 {
			return fmt.Errorf("%d connections", n)
		}
		return nil
	})
	gone.cut()
	e.stays("the mirror", r.mirrored("bar", "203.0.113.1"))
	r.rotated(since, 83)

	e.sameIdentities(before)
	for _, w := range london.writes(t, e.id, start) {
		if w.Verb == "delete" || w.Verb == "create" {
			t.Errorf("%v", w)
		}
	}
	if n := d.logged("Starting"); n != 1 {
		t.Errorf("the daemon started %d times", n)
	}
}

// uses checks that a daemon has made a connection since its kubeconfig was swapped, and so lost a
// token, which it made without that token: the old one's are closed.
func uses(r *remote, old string, swapped time.Time, d *daemon) error {
	if old == r.token {
		return fmt.Errorf("the tokens are one")
	}
	page, err := d.page()
	if err != nil {
		return err
	}
	for _, row := range page.Remotes {
		if row.Name == r.name && row.LastSync.After(swapped) {
			return nil
		}
	}
	return fmt.Errorf("the exports have not been read again: %+v", page.Remotes)
}

// Files that a kubeconfig names change alone.
func TestNamedFilesRotate(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	files := map[string]string{"token": r.token, "ca.crt": string(r.proxy.ca)}
	m := e.mount(files)
	files["kubeconfig"] = r.config(func(cluster *clientcmdapi.Cluster, user *clientcmdapi.AuthInfo) {
		cluster.CertificateAuthorityData, cluster.CertificateAuthority = nil, m.path("ca.crt")
		user.Token, user.TokenFile = "", m.path("token")
	})
	m.swap(files)
	r.kubeconfig = m.path("kubeconfig")
	d := e.daemon([]*remote{r}, listening...)
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1"))
	before := e.identities()

	since := london.mark(t)
	old := r.token
	r.token = e.token(paris, "second")
	files["token"] = r.token
	swapped := time.Now()
	m.swap(files)
	e.soon("the new token is used", func() error { return uses(r, old, swapped, d) })
	r.revoke("token", old)
	e.stays("the mirror", r.mirrored("bar", "203.0.113.1"))
	r.rotated(since, 81)

	since = london.mark(t)
	r.revoke("second", r.token)
	e.logs(d, "mirrors are kept unchanged", r.name, "nauthorized")
	r.token = e.token(paris, "third")
	files["token"] = r.token
	m.swap(files)
	e.eventually(lasting, "all is healthy", d.shows(r, "up"))
	r.rotated(since, 82)

	// The same address has another certificate, of another CA.
	since = london.mark(t)
	other := newProxy(t, paris)
	other.cut()
	r.proxy.cut()
	other.listen(r.proxy.address)
	r.proxy = other
	e.logs(d, "mirrors are kept unchanged", r.name, "certificate signed by unknown authority")
	e.soon("the cause", d.shows(r, "down", "certificate signed by unknown authority"))
	files["ca.crt"] = string(r.proxy.ca)
	m.swap(files)
	e.eventually(lasting, "all is healthy", d.shows(r, "up"))
	r.rotated(since, 83)
	e.sameIdentities(before)
}

// plugin writes an exec plugin of kubeconfigs: it prints as credentials what is in
// a file.
func (e *env) plugin(path, tokenFile string) {
	e.Helper()
	script := fmt.Sprintf(`#!/bin/sh
read token <%q || exit 1
echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"'"$token"'"}}'
`, tokenFile)
	e.must(os.WriteFile(path+".new", []byte(script), 0o700))
	e.must(os.Rename(path+".new", path)) // else it may be executed while it is open
}

func execConfig(command string) func(*clientcmdapi.Cluster, *clientcmdapi.AuthInfo) {
	return func(_ *clientcmdapi.Cluster, user *clientcmdapi.AuthInfo) {
		user.Token = ""
		user.Exec = &clientcmdapi.ExecConfig{
			APIVersion: "client.authentication.k8s.io/v1", Command: command, InteractiveMode: clientcmdapi.NeverExecInteractiveMode,
			InstallHint: "it comes with the cloud's tools",
		}
	}
}

func TestExecPlugin(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	dir := t.TempDir()
	command, tokenFile := filepath.Join(dir, "cloud-login"), filepath.Join(dir, "token")
	write := func(token string) { e.must(os.WriteFile(tokenFile, []byte(token+"\n"), 0o600)) }
	write(r.token)
	e.must(os.WriteFile(r.kubeconfig, []byte(r.config(execConfig(command))), 0o600))
	start := london.mark(t)
	d := e.daemon([]*remote{r}, listening...)
	e.logs(d, "mirrors are kept unchanged", r.name, "cloud-login")
	e.soon("the cause", d.shows(r, "down", "cloud-login"))
	e.noWrites(start)
	e.plugin(command, tokenFile)
	e.soon("the mirror, once the plugin is there", r.mirrored("bar", "203.0.113.1"), d.shows(r, "up"))
	before, since := e.identities(), london.mark(t)

	old := r.token
	r.token = e.token(paris, "second")
	write(r.token)
	r.revoke("token", old) // the plugin is run again
	e.stays("the mirror", r.mirrored("bar", "203.0.113.1"))
	r.rotated(since, 81)

	// The plugin is removed: what is known stays. Its last token is still valid.
	since = london.mark(t)
	e.must(os.Remove(command))
	r.revoke("second", r.token)
	e.logs(d, "mirrors are kept unchanged", r.name)
	e.stays("the mirror", r.mirrored("bar", "203.0.113.1"))
	e.must(d.shows(r, "down", "nauthorized")())
	r.token = e.token(paris, "third")
	write(r.token)
	e.plugin(command, tokenFile)
	e.eventually(lasting, "all is healthy", d.shows(r, "up"))
	r.rotated(since, 82)
	e.sameIdentities(before)
}
