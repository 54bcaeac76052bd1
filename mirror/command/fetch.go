package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/status"
	"service-mirror.io/service-mirror/remote"
)

// Bounds of an answer with the status: a mirror takes about 1 KB of it.
const (
	maxStatus   = 64 << 20
	statusTime  = time.Minute
	statusPath  = "status.json"
	servedNames = "kubernetes.default" // under which every replica serves what the API server passes on
)

// fetch reads the status at a URL.
func fetch(ctx context.Context, at string) (page status.Page, err error) {
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(at, "/")+"/"+statusPath, nil)
	if err != nil {
		return page, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return page, errors.New(remote.Cause(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
		return page, fmt.Errorf("status %s: %s", resp.Status, text)
	}
	return decodeStatus(resp.Body)
}

// fetchFromPod reads the status that a pod serves through the API server.
func fetchFromPod(ctx context.Context, local *rest.Config, pod cache.ObjectName, port string) (status.Page, error) {
	page, err := proxied(ctx, local, pod, port)
	if misdirected(err) {
		// The API server passes on the name under which it was requested, which the daemon may not know.
		again := rest.CopyConfig(local)
		again.Wrap(func(inner http.RoundTripper) http.RoundTripper { return renamed{inner} })
		page, err = proxied(ctx, again, pod, port)
	}
	switch {
	case apierrors.IsForbidden(err):
		return page, fmt.Errorf("%s: grant get on pods/proxy in namespace %s", remote.Cause(err), pod.Namespace)
	case apierrors.IsNotFound(err):
		return page, fmt.Errorf("%s: check --leader-elect-lease and --port", remote.Cause(err))
	}
	return page, err
}

func misdirected(err error) bool {
	answer := apierrors.APIStatus(nil)
	return errors.As(err, &answer) && answer.Status().Code == http.StatusMisdirectedRequest
}

func proxied(ctx context.Context, local *rest.Config, pod cache.ObjectName, port string) (page status.Page, err error) {
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	client, err := remote.NewClient(local)
	if err != nil {
		return page, err
	}
	body, err := client.CoreV1().Pods(pod.Namespace).ProxyGet("", pod.Name, port, statusPath, nil).Stream(ctx)
	if err != nil {
		if apierrors.ReasonForError(err) == metav1.StatusReasonUnknown && !misdirected(err) {
			err = errors.New(remote.Cause(err)) // without the URL
		}
		return page, err
	}
	defer body.Close()
	return decodeStatus(body)
}

// renamed sends requests under another name of the same server.
type renamed struct{ inner http.RoundTripper }

func (r renamed) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Host = servedNames
	return r.inner.RoundTrip(req)
}

// decodeStatus reads an answer. What is no status of the daemon is an error.
func decodeStatus(body io.Reader) (page status.Page, err error) {
	limited := &io.LimitedReader{R: body, N: maxStatus}
	var read struct {
		*status.Page
		Remotes *[]status.Remote `json:"remotes"`
		Mirrors *[]status.Mirror `json:"mirrors"`
	}
	read.Page = &page
	switch err := json.NewDecoder(limited).Decode(&read); {
	case limited.N == 0:
		return page, fmt.Errorf("the answer has more than %d MiB", maxStatus>>20)
	case err != nil:
		return page, fmt.Errorf("the answer is not the daemon's status: %w", err)
	case read.Remotes == nil || read.Mirrors == nil:
		return page, errors.New("the answer is not the daemon's status: it has no remotes and mirrors, it may be a publisher's")
	}
	page.Remotes, page.Mirrors = *read.Remotes, *read.Mirrors
	return page, nil
}

// validateURL finds what is wrong with the URL of a status.
func validateURL(at string) error {
	if u, err := url.Parse(at); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("--url: %.300q is not an http or https URL: set one such as http://localhost:8080", at)
	}
	return nil
}
