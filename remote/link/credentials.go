package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/clientcmd"

	"service-mirror.io/service-mirror/remote/failure"
)

// How long a new account needs until its token exists, and until it is accepted. Variables, for tests.
var (
	tokenTime  = 30 * time.Second
	acceptTime = 15 * time.Second
)

// credentials makes the kubeconfig for the daemon, and tries it from here.
func (l *Linker) credentials(ctx context.Context, request Request, remote Remote, plan Plan) ([]byte, error) {
	l.step(l.Remote, "creating a kubeconfig with the token of Secret %s/%s, for server %s", request.Reader, reader, plan.Server)
	token, err := l.token(ctx, request.Reader)
	if err != nil {
		return nil, err
	}
	at := plan.Endpoint
	if plan.CAFrom == clusterCA {
		at.CA = token.Data[corev1.ServiceAccountRootCAKey]
	}
	l.line("server certificate verified with " + plan.CAFrom)
	content, err := kubeconfig(plan.Name, at, string(token.Data[corev1.ServiceAccountTokenKey]))
	if err != nil {
		return nil, err
	}
	return content, l.try(ctx, content, request, remote.UID, plan)
}

// token is the Secret of the account, once it has a token.
func (l *Linker) token(ctx context.Context, namespace string) (secret corev1.Secret, err error) {
	err = wait.PollUntilContextTimeout(ctx, time.Second, tokenTime, true, func(ctx context.Context) (bool, error) {
		secret = corev1.Secret{}
		found, err := l.Remote.read(ctx, secrets, namespace, reader, &secret)
		return found && len(secret.Data[corev1.ServiceAccountTokenKey]) > 0, err
	})
	if wait.Interrupted(err) && ctx.Err() == nil {
		err = fmt.Errorf("%s: Secret %s/%s has no token after %v: check that kube-controller-manager runs", l.Remote.Name, namespace, reader, tokenTime)
	}
	return secret, err
}

// try has the kubeconfig identify the cluster. Only where --server says that pods reach it at another address than
// this machine can it be that it does not answer.
func (l *Linker) try(ctx context.Context, content []byte, request Request, uid types.UID, plan Plan) error {
	config, err := clientcmd.RESTConfigFromKubeConfig(content)
	if err != nil {
		return fmt.Errorf("%s: the new kubeconfig is malformed: %w", l.Remote.Name, err)
	}
	linked := Cluster{Name: l.Remote.Name, Config: config}
	if err := linked.connect(); err != nil {
		return err
	}
	var answer types.UID
	var last error
	err = wait.PollUntilContextTimeout(ctx, time.Second, acceptTime, true, func(ctx context.Context) (bool, error) {
		uid, err := linked.uid(ctx)
		if last == nil || ctx.Err() == nil { // what the end of the time does to a request is not the cause
			answer, last = uid, err
		}
		refused := apierrors.IsUnauthorized(last) || apierrors.IsForbidden(last) // which a new account is for a moment
		return !refused, nil
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("%s rejected the token: check that it is the same cluster. %s", plan.Server, failure.Cause(last))
	case untrusted(last):
		return fmt.Errorf("the certificate of %s is not trusted by %s: use --ca. %s", plan.Server, plan.CAFrom, failure.Cause(last))
	case last != nil && (request.Server == "" || !unreachable(last)):
		return fmt.Errorf("%s does not answer with the new kubeconfig: %s", plan.Server, failure.Cause(last))
	case last != nil:
		l.note(l.Remote, "not tried: this machine cannot reach it (%s)", failure.Cause(last))
	case answer != uid:
		return fmt.Errorf("%s is not the cluster of context %s: use --server or --remote-context", plan.Server, l.Remote.Name)
	default:
		l.line("the kubeconfig works")
	}
	return nil
}

// unreachable tells that nothing has answered.
func unreachable(err error) bool {
	_, transport := errors.AsType[*url.Error](err)
	return transport || errors.Is(err, context.DeadlineExceeded)
}

// untrusted tells whether a server's certificate is why nothing was requested.
func untrusted(err error) bool {
	if err == nil {
		return false
	}
	_, verification := errors.AsType[*tls.CertificateVerificationError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, hostname := errors.AsType[x509.HostnameError](err)
	_, invalid := errors.AsType[x509.CertificateInvalidError](err)
	return verification || unknown || hostname || invalid
}
