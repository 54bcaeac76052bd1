package deploy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// cluster is a real control plane in a process of its own. There are no nodes.
type cluster struct {
	kubernetes.Interface
	name       string
	dir        string
	kubeconfig string
	config     *rest.Config
	proc       *exec.Cmd
}

// The clusters that all tests share, one after the other: what is installed has fixed
// names. Mirrors are made in london.
var london, paris *cluster

func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "service-mirror-deploy-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	imageDir = filepath.Join(dir, "image")
	var wg sync.WaitGroup
	for name, c := range map[string]**cluster{"london": &london, "paris": &paris} {
		wg.Go(func() {
			var err error
			if *c, err = startCluster(name, filepath.Join(dir, name)); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			}
		})
	}
	wg.Wait()
	code := 1
	if london != nil && paris != nil {
		code = m.Run()
	}
	for _, c := range []*cluster{london, paris} {
		if c != nil {
			c.stop()
		}
	}
	return code
}

// program is the path of a program that the tests need, built by the Makefile.
func program(name string) string {
	dir := os.Getenv("SERVICE_MIRROR_BUILD")
	if dir == "" {
		dir = "../../.build"
	}
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%v: run the tests with make, which builds it\n", err)
		os.Exit(1)
	}
	return path
}

// shipped is the path of something in deploy/.
func shipped(name string) string {
	path, err := filepath.Abs(filepath.Join("../../deploy", name))
	if err != nil {
		panic(err) // the working directory is gone
	}
	return path
}

func startCluster(name, dir string) (*cluster, error) {
	cmd := exec.Command(program("cluster"), "--name", name, "--dir", dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		cmd.Wait()
		return nil, fmt.Errorf("ended before it was ready: %w", err)
	}
	go io.Copy(io.Discard, out)
	c := &cluster{name: name, dir: dir, kubeconfig: strings.TrimSpace(line), proc: cmd}
	if c.config, err = clientcmd.BuildConfigFromFlags("", c.kubeconfig); err != nil {
		return nil, err
	}
	c.config.QPS = -1
	c.config.WarningHandler = rest.NoWarnings{}
	c.Interface, err = kubernetes.NewForConfig(c.config)
	return c, err
}

func (c *cluster) stop() {
	c.proc.Process.Signal(syscall.SIGTERM)
	ended := time.AfterFunc(20*time.Second, func() { c.proc.Process.Kill() })
	c.proc.Wait()
	ended.Stop()
}

// kubectl runs a command as a user would who has both clusters in one kubeconfig, and
// returns all that it printed.
func kubectl(ctx context.Context, args ...string) (string, error) {
	return run(ctx, program("kubectl"), args...)
}

// run runs a program with both clusters in its kubeconfig.
func run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+london.kubeconfig+":"+paris.kubeconfig, "KUBECTL="+program("kubectl"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, out.String())
	}
	return out.String(), err
}
