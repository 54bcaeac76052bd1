package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"k8s.io/client-go/rest"

	"service-mirror.io/service-mirror/mirror"
	"service-mirror.io/service-mirror/mirror/leader"
	"service-mirror.io/service-mirror/mirror/status"
	"service-mirror.io/service-mirror/remote"
	"service-mirror.io/service-mirror/remote/failure"
)

const statusUsage = `service-mirror status shows each remote with its gateways and its mirrors by state, and the
problems by reason with their fix. It writes nothing.

It reads /status.json of the daemon's leader, the pod that has the Lease, through the API
server. If that fails, it prints why and computes the status from the clusters, with the
daemon's flags if they are set. Without them, only the local cluster's mirrors and whether
they have endpoints are known.

Usage:
  service-mirror status [-o json] [--wait DURATION] [FLAGS OF THE DAEMON]

It requires get on leases.coordination.k8s.io and pods/proxy in the namespace of the Lease; to
compute the status, list and watch on everything that the daemon reads. In a pod of the
daemon, use --url http://localhost:8080 for the status of that replica.

Exit codes:
  0  healthy, as far as known
  1  a remote, a gateway or a mirror is unhealthy
  2  invalid flags
  3  the status cannot be read
`

// statusCommand is what its own flags say.
type statusCommand struct {
	*config
	output, url string
	port        int
	wait        wait
}

func runStatus(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c, err := parseStatus(args)
	c.wait.stderr = stderr
	return c.execute(ctx, c.run, err, statusUsage, stdout, stderr)
}

func parseStatus(args []string) (*statusCommand, error) {
	c := &statusCommand{config: newConfig("status")}
	c.parts.election.Namespace = cmp.Or(os.Getenv("POD_NAMESPACE"), "service-mirror")
	own := c.own()
	c.addOutput(&c.output)
	own.StringVar(&c.url, "url", "", "`URL` of a replica to read the status from instead of the leader, such as one of kubectl port-forward")
	own.IntVar(&c.port, "port", 0, "`NUMBER` of the leader's port (default: the first port of its pod)")
	c.wait.add(own, "everything is healthy")
	if err := c.parse(args); err != nil || c.version {
		return c, err
	}
	c.parts.election.Elect() // which Lease there is to read
	err := c.read()
	return c, errors.Join(validateOutput(c.output), c.validate(), err)
}

// validate finds what is wrong with the command's own flags.
func (c *statusCommand) validate() error {
	mistakes := []error{c.noArguments(), c.wait.validate("print the current status")}
	if c.port < 0 || c.port > 65535 {
		mistakes = append(mistakes, fmt.Errorf("--port: %d is not a port number", c.port))
	}
	if c.url != "" {
		mistakes = append(mistakes, validateURL(c.url))
		if c.port != 0 {
			mistakes = append(mistakes, errors.New("--port and --url are mutually exclusive: remove one"))
		}
	}
	return errors.Join(mistakes...)
}

func (c *statusCommand) run(ctx context.Context, stdout io.Writer) error {
	summary, err := c.awaited(ctx)
	if err != nil {
		return exit{exitUnread, err}
	}
	if c.output == "json" {
		err = summary.WriteJSON(stdout)
	} else {
		err = summary.WriteText(stdout)
	}
	switch {
	case err != nil:
		return exit{exitUnread, err}
	case !summary.Healthy:
		return differs
	}
	return nil
}

// awaited is the summary once all is healthy, or that of the end of the time to wait, with the progress.
func (c *statusCommand) awaited(ctx context.Context) (status.Summary, error) {
	if c.url == "" { // an unusable kubeconfig is not awaited
		if _, err := c.local(); err != nil {
			return status.Summary{}, err
		}
	}
	return await(ctx, c.wait, func() attempt[status.Summary] {
		summary, err := c.summary(ctx)
		missing := ""
		switch {
		case err != nil:
			missing = err.Error()
		case !summary.Healthy:
			missing = summary.Verdict()
		}
		return attempt[status.Summary]{summary, err, missing}
	})
}

// summary is from the leader or, if that is not possible, worked out.
func (c *statusCommand) summary(ctx context.Context) (status.Summary, error) {
	if c.url != "" {
		page, err := fetch(ctx, c.url)
		if err != nil {
			return status.Summary{}, fmt.Errorf("--url %s: %w", c.url, err)
		}
		return status.Summarize(&page, status.Source{From: status.FromURL, Name: c.url}), nil
	}
	local, err := c.local()
	if err != nil {
		return status.Summary{}, err
	}
	page, pod, why := c.fromLeader(ctx, local)
	if why == nil {
		return status.Summarize(&page, status.Source{From: status.FromLeader, Name: "pod " + pod}), nil
	}
	source := status.Source{From: status.FromClusters, Name: c.localName(local), Why: failure.Line(why.Error())}
	if page, err = c.workOut(ctx, local); err != nil {
		return status.Summary{}, fmt.Errorf("the leader's status cannot be read: %w\nand it cannot be computed from the clusters: %w", why, err)
	}
	if len(c.remotes) == 0 && c.parts.remotes.From() == "" {
		source.From = status.FromLocal
		page = status.LocalOnly(page)
	}
	return status.Summarize(&page, source), nil
}

// fromLeader reads the status of the replica that holds the Lease.
func (c *statusCommand) fromLeader(ctx context.Context, local *rest.Config) (page status.Page, pod string, err error) {
	client, err := remote.NewClient(local)
	if err != nil {
		return page, "", err
	}
	holder, err := leader.Holder(ctx, client.CoordinationV1(), c.election.Lease)
	if err != nil {
		return page, "", err
	}
	port := ""
	if c.port > 0 {
		port = strconv.Itoa(c.port)
	}
	// What a pod answers is no object of Kubernetes, which is all that this client takes for an answer.
	bare, err := remote.LoadLocal(c.kubeconfig, c.kubecontext)
	if err != nil {
		return page, "", err
	}
	bare.UserAgent = local.UserAgent
	page, err = fetchFromPod(ctx, bare, holder, port)
	if err == nil && page.ElectionOn && !page.Leader {
		err = errors.New("it is no longer the leader")
	}
	if err != nil {
		return page, "", fmt.Errorf("pod %v: %w", holder, err)
	}
	return page, holder.String(), nil
}

// workOut is the overview that a leader with these flags would have.
func (c *statusCommand) workOut(ctx context.Context, local *rest.Config) (page status.Page, err error) {
	err = c.mirrorAll(c.quiet(ctx), local, func(ctx context.Context, controller *mirror.Controller, remotes []*remote.Remote) (err error) {
		page, err = controller.ForeseenOverview(ctx, remotes, c.localName(local))
		return err
	})
	page.Local, page.Version = c.localName(local), programVersion()
	return page, err
}
