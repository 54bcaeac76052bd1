package harness

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Cluster is a real control plane in a process of its own, of testdata/cluster. It has no
// nodes, and an administrator for its client.
type Cluster struct {
	kubernetes.Interface
	Name       string
	Dir        string // its data and its audit log
	Kubeconfig string // path of the administrator's
	Config     *rest.Config
	Process    *Process
	program    string
}

// ClusterOptions say which control plane to start.
type ClusterOptions struct {
	// Name is the cluster's, and its context's in the kubeconfig.
	Name string
	// Dir has the data. One that was used before starts the cluster that it had.
	Dir string
	// Program is the control plane's; empty: the one in BuildDir, of the oldest supported
	// Kubernetes where $SERVICE_MIRROR_OLDEST, a list, has the cluster's name.
	Program string
	// Args are more arguments of the program.
	Args []string
	// Command makes the command that runs the program; nil: exec.Command.
	Command func(name string, args ...string) *exec.Cmd
	// Progress is where the program says what it does; nil: this process's stderr.
	Progress *os.File
}

// StartCluster starts a control plane and waits until it is ready.
func StartCluster(o ClusterOptions) (*Cluster, error) {
	program, err := o.program()
	if err != nil {
		return nil, err
	}
	cmd := o.command(program)
	printed, stdout, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout = stdout
	process, err := Start(cmd)
	stdout.Close() // the process's own is left, which ends with it
	if err != nil {
		printed.Close()
		return nil, err
	}
	c := &Cluster{Name: o.Name, Dir: o.Dir, Process: process, program: program}
	if err := c.connect(printed); err != nil {
		c.Stop()
		return nil, fmt.Errorf("start cluster %s: %w", o.Name, err)
	}
	return c, nil
}

func (o ClusterOptions) program() (string, error) {
	if o.Program != "" {
		return o.Program, nil
	}
	if slices.Contains(strings.Split(os.Getenv("SERVICE_MIRROR_OLDEST"), ","), o.Name) {
		return FindProgram("oldest/cluster")
	}
	return FindProgram("cluster")
}

func (o ClusterOptions) command(program string) *exec.Cmd {
	command := exec.Command
	if o.Command != nil {
		command = o.Command
	}
	cmd := command(program, append([]string{"--name", o.Name, "--dir", o.Dir}, o.Args...)...)
	cmd.Stderr = os.Stderr
	if o.Progress != nil {
		cmd.Stderr = o.Progress
	}
	return cmd
}

// connect waits for the path of the kubeconfig, which the program prints when it is ready.
func (c *Cluster) connect(printed *os.File) error {
	line, err := bufio.NewReader(printed).ReadString('\n')
	if errors.Is(err, io.EOF) {
		err = errors.New("it ended before it was ready")
	}
	if err != nil {
		printed.Close()
		return err
	}
	go func() {
		defer printed.Close()
		io.Copy(io.Discard, printed)
	}()
	c.Kubeconfig = strings.TrimSpace(line)
	if c.Config, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig); err != nil {
		return err
	}
	c.Interface, err = Connect(c.Config)
	return err
}

// Connect makes a client that neither limits its own requests nor logs warnings, and sets the
// configuration to do so: v1 Endpoints has a deprecation warning with each answer.
func Connect(config *rest.Config) (kubernetes.Interface, error) {
	config.QPS = -1
	config.WarningHandler = rest.NoWarnings{}
	return kubernetes.NewForConfig(config)
}

// Stop ends the control plane and leaves its data.
func (c *Cluster) Stop() {
	const grace = 20 * time.Second
	c.Process.Stop(grace) // how it ends is no test's subject but the program's own
}

// Kubectl runs kubectl, which the control plane's program is too, as the administrator, and
// returns what it printed to stdout.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, c.program, append([]string{"kubectl", "--kubeconfig", c.Kubeconfig}, args...)...).Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		err = fmt.Errorf("cluster %s: kubectl %s: %w\n%s%s", c.Name, strings.Join(args, " "), err, out, exit.Stderr)
	}
	return string(out), err
}
