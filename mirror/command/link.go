package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"service-mirror.io/service-mirror/remote/failure"
	"service-mirror.io/service-mirror/remote/link"
)

const linkUsage = `service-mirror link adds the remote cluster NAME, for example paris, to the daemon in the
local cluster, for example london:

  1. creates a ServiceAccount in paris that can read Services, and the objects that the keys name;
  2. creates a kubeconfig with its token and paris's CA and server URL, and tries it from here;
  3. allows mirrors of NAME with an annotation on the daemon's ServiceAccount, and connections
     to paris's API server and gateways with a NetworkPolicy, if one is needed;
  4. stores the kubeconfig and each KEY in a Secret in london, with the label
     service-mirror.io/remote=NAME. The daemon watches such Secrets (--remotes-from) and is
     not restarted;
  5. waits until the daemon has connected to paris, and sends requests to the mirrors of NAME
     from the daemon's pod.

All arguments are checked before anything is written. Run link again after a change of
paris's token, CA or address, of its gateway's ports, or of a KEY; objects that are up to
date are not written. Nothing is deleted in paris.

Usage:
  service-mirror link NAME [KEY=VALUE | KEY-]... [FLAGS]

KEY=VALUE sets a key of the daemon's --remote; KEY- removes it. Other keys are kept. In paris,
access is granted only to the objects that the keys name:

  gateway=NS/NAME, gateway=gateway-api:NS/NAME, gateway-port=, default-gateway-port=,
  address=, tcp-services=NS/NAME, udp-services=NS/NAME, records=NS, namespaces=NS,NS...,
  name=TEMPLATE, namespace=REMOTE:LOCAL, cluster-domain=, max-services=, max-bytes=, uid=

Examples:
  service-mirror link paris --context london --remote-context paris gateway=ingress/gateway
  service-mirror link paris --context london records=service-mirror gateway-port-
  service-mirror link paris --print=remote gateway=ingress/gateway >paris.yaml

Exit codes:
  0  linked; verified, or NOT verified as printed
  1  failed in the last step printed
  2  invalid flags or arguments; nothing was changed
  3  linked, but not all requests to its mirrors arrive
`

const unlinkUsage = `service-mirror unlink removes the remote cluster NAME from the local cluster: its Secret,
and the annotation and the NetworkPolicy that allow it; also the --remote argument that an
earlier version's link added to the Deployment. Its mirrors are kept until service-mirror prune
deletes them. Nothing is deleted in the remote cluster; the command to revoke the token is
printed.

Usage:
  service-mirror unlink NAME [FLAGS]

Exit codes:
  0  removed, or not found
  1  failed
  2  invalid flags or arguments; nothing was changed
`

const exitNotReached = 3

// linkCommand is what the flags of link and unlink say.
type linkCommand struct {
	*config
	request    link.Request
	remote     struct{ kubeconfig, context string }
	namespace  string
	deployment string
	ca, print  string
	output     string
	stderr     io.Writer
}

func runLink(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c, err := parseLink(args)
	c.stderr = stderr
	return c.execute(ctx, c.link, err, linkUsage, stdout, stderr)
}

func runUnlink(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c, err := parseUnlink(args)
	c.stderr = stderr
	return c.execute(ctx, c.unlink, err, unlinkUsage, stdout, stderr)
}

// newLinkCommand has the flags that link and unlink share.
func newLinkCommand(name string) *linkCommand {
	c := &linkCommand{config: emptyConfig(name)}
	own := c.own()
	own.StringVar(&c.kubecontext, "context", "", "context `NAME` of the local cluster (default: the current context)")
	own.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig `PATH` of the local cluster (default: the same as kubectl)")
	own.StringVar(&c.remote.context, "remote-context", "", "context `NAME` of the remote cluster (default: the remote's name; with --remote-kubeconfig the current context)")
	own.StringVar(&c.remote.kubeconfig, "remote-kubeconfig", "", "kubeconfig `PATH` of the remote cluster (default: the local cluster's)")
	own.StringVar(&c.namespace, "namespace", link.DefaultName, "`NAMESPACE` of the daemon in the local cluster")
	own.StringVar(&c.deployment, "deployment", link.DefaultName, "`NAME` of the daemon's Deployment")
	own.StringVar(&c.request.Reader, "remote-namespace", link.DefaultName, "`NAMESPACE` of the ServiceAccount in the remote cluster")
	c.addOutput(&c.output)
	return c
}

func parseLink(args []string) (*linkCommand, error) {
	c := newLinkCommand("link")
	own := c.own()
	own.StringVar(&c.request.Server, "server", "", "`URL` of the remote's API server, reachable from pods of the local cluster (default: from your kubeconfig)")
	own.StringVar(&c.ca, "ca", "", "`FILE` with the CA of that server, in PEM (default: from your kubeconfig)")
	own.DurationVar(&c.request.Wait, "wait", 2*time.Minute, "`DURATION` to wait until the daemon has connected to the remote, such as 90s or 5m; 0 skips verification")
	own.BoolVar(&c.request.Migrate, "migrate", false, "move a remote that an earlier version linked with --remote in the Deployment into a Secret; the pods are replaced")
	own.StringVar(&c.print, "print", "", "print the manifests of one `SIDE`, remote or local, as YAML and write nothing. The remote side reads no cluster; the local side requires that the manifests of the remote side are applied")
	if err := c.parse(args); err != nil || c.version {
		return c, err
	}
	return c, errors.Join(validateOutput(c.output), c.request.ParseArguments(c.flags.Args()), c.validate())
}

func parseUnlink(args []string) (*linkCommand, error) {
	c := newLinkCommand("unlink")
	if err := c.parse(args); err != nil || c.version {
		return c, err
	}
	err := c.request.ParseArguments(c.flags.Args())
	if len(c.request.Set)+len(c.request.Remove) > 0 {
		err = errors.Join(err, errors.New("unlink: unexpected KEY=VALUE: remove it; use link to change keys"))
	}
	return c, errors.Join(validateOutput(c.output), err)
}

// validate finds what is wrong with the flags of link.
func (c *linkCommand) validate() error {
	var mistakes []error
	if c.request.Server != "" {
		if err := link.ValidateServer(c.request.Server); err != nil {
			mistakes = append(mistakes, fmt.Errorf("--server: %w", err))
		}
	}
	if c.ca != "" {
		content, err := os.ReadFile(c.ca)
		if err == nil {
			err = link.ValidateCA(content)
		}
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("--ca %s: %w", c.ca, err))
		}
		c.request.CA = content
	}
	if c.request.Wait < 0 {
		mistakes = append(mistakes, fmt.Errorf("--wait: %v is negative: set a duration, or 0 to skip verification", c.request.Wait))
	}
	switch {
	case c.print != "" && c.print != "remote" && c.print != "local":
		mistakes = append(mistakes, fmt.Errorf("--print: unknown side %.40q: set remote or local", c.print))
	case c.print != "" && c.output == "json":
		mistakes = append(mistakes, errors.New("--output and --print are mutually exclusive: remove one"))
	}
	return errors.Join(mistakes...)
}

// linker connects to the local cluster and, if it is wanted, to the remote one.
func (c *linkCommand) linker(out io.Writer, remote bool) (*link.Linker, error) {
	agent := "service-mirror/" + programVersion()
	l := link.Linker{Namespace: c.namespace, Deployment: c.deployment, Out: out, JSON: c.output == "json"}
	var err error
	if l.Local, err = link.LoadCluster(c.kubeconfig, c.kubecontext, agent); err != nil {
		return nil, fmt.Errorf("local cluster: %w: use --context or --kubeconfig", err)
	}
	if !remote {
		return link.NewLinker(l)
	}
	kubeconfig, name := c.reached()
	if l.Remote, err = link.LoadCluster(kubeconfig, name, agent); err != nil {
		return nil, fmt.Errorf("remote cluster %s: %w: use --remote-context or --remote-kubeconfig", c.request.Name, err)
	}
	return link.NewLinker(l)
}

// reached is how the remote cluster is reached: a kubeconfig, and a context in it.
func (c *linkCommand) reached() (kubeconfig, name string) {
	kubeconfig, name = c.remote.kubeconfig, c.remote.context
	if kubeconfig == "" {
		kubeconfig = c.kubeconfig
		if name == "" {
			name = c.request.Name
		}
	}
	return kubeconfig, name
}

// link links, or prints what that takes.
func (c *linkCommand) link(ctx context.Context, stdout io.Writer) error {
	ctx = c.quiet(ctx)
	if c.print == "remote" {
		return link.PrintRemote(stdout, c.request)
	}
	progress := c.progress(stdout)
	l, err := c.linker(progress, true)
	if err != nil {
		return err
	}
	if c.print == "local" {
		return l.PrintLocal(ctx, stdout, c.request)
	}
	result, err := l.Link(ctx, c.request)
	if c.output == "json" {
		err = errors.Join(err, printJSON(stdout, result))
	}
	if result.Verified != nil {
		c.conclude(progress, result, l.Remote.Flags)
	}
	if errors.Is(err, link.ErrNotReached) {
		return exit{exitNotReached, errors.New("")} // it is said already
	}
	return err
}

// progress is where the steps are printed: what a program reads is alone on stdout.
func (c *linkCommand) progress(stdout io.Writer) io.Writer {
	if c.output == "json" || c.print != "" {
		return c.stderr
	}
	return stdout
}

// conclude says whether requests arrive, and how to find out again.
func (c *linkCommand) conclude(out io.Writer, result link.Result, remote string) {
	v := result.Verified
	again := "    " + failure.Printable(v.Command)
	switch v.State {
	case link.Reached:
		fmt.Fprintf(out, "Linked and verified: requests to the mirrors of %s arrive.\n", result.Name)
	case link.NotReached:
		fmt.Fprintf(out, "\nLinked, but not all requests arrive, see above. To verify again:\n%s\n", again)
	default:
		fmt.Fprintf(out, "\nLinked, NOT verified: %s.\n", failure.Line(v.Reason))
		if v.Exports {
			fmt.Fprintf(out, "To verify:\n%s\n", again)
			return
		}
		fmt.Fprintf(out, "To export a Service, and to verify:\n    kubectl %s label service SERVICE service-mirror.io/exported=true\n%s\n", remote, again)
	}
}

// unlink unlinks, and says what remains.
func (c *linkCommand) unlink(ctx context.Context, stdout io.Writer) error {
	ctx = c.quiet(ctx)
	l, err := c.linker(c.progress(stdout), false)
	if err != nil {
		return err
	}
	result, err := l.Unlink(ctx, c.request.Name)
	if c.output == "json" {
		err = errors.Join(err, printJSON(stdout, result))
	}
	if err != nil {
		return err
	}
	c.remains(c.progress(stdout), result, l.Local.Flags)
	return nil
}

// remains says what unlink has left, and how to delete it.
func (c *linkCommand) remains(out io.Writer, result link.Result, local string) {
	fmt.Fprintf(out, `
The mirrors of %[1]s are kept. To delete them:
    service-mirror prune %[1]s %[2]s --remotes-from=%[6]s
Its token is valid until you delete the ServiceAccount in %[1]s. If no other cluster uses it:
    kubectl %[3]s --namespace %[4]s delete serviceaccount %[5]s
`, result.Name, local, link.KubectlFlags(c.reached()), c.request.Reader, link.Account, result.RemotesFrom)
}
